"""What runs show of their insides: lets `train.py --explain` leave it in their folders, and reads it back."""

import io
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from basics import UserError, for_this_process, read_json
from promptlearn.experiments.checkout import Checkout
from promptlearn.report.runs import Comparison, Run

FOLDER = "explain"  # below the folder of a run
FEATURES = {"before", "after", "label", "classname"}  # the arrays in explain.npz
MOST_METHODS = 14  # that are looked into, and tested against each other, on one page


@dataclass(frozen=True)
class Explanation:
    """See trainers/explain.py.

    Attributes:
        towers: "text" and "image" -> layers and scenes.
        words: learned text vectors with the nearest words.
        features: arrays before, after, label, classname.
    """

    towers: dict[str, dict]
    words: list[dict]
    features: dict[str, np.ndarray]


def read_explanation(run: Run) -> Explanation | None:
    """What was written about the run's model; None if there is nothing, or it is about an earlier model."""
    folder = run.job.folder / FOLDER
    try:
        found = read_json(folder / "explain.json")
        if found["prompts_sha256"] != run.result["prompts_sha256"]:
            return None
        arrays = io.BytesIO((folder / "explain.npz").read_bytes())
        with np.load(arrays, allow_pickle=False) as features:
            complete = found["towers"] and FEATURES <= set(features)
            return Explanation(found["towers"], found["words"], dict(features)) if complete else None
    except (UserError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def models(comparison: Comparison, dataset: str) -> dict[str, Run]:
    """For each method the run that its model is looked at in: the most shots, the first seed that trained."""
    found = {}
    for method in comparison.methods[:MOST_METHODS]:
        trained = [run for run in comparison.select(method, dataset) if run.job.source is None]
        if trained:
            found[method] = trained[0]
    return found


def explain_missing(runs: list[Run], checkout: Checkout) -> list[str]:
    """Let train.py explain the models that are not explained yet; return what went wrong, a line each."""
    missing = [run for run in runs if read_explanation(run) is None]
    problems = []
    for run in tqdm(missing, desc="explaining", unit="run", disable=None):
        folder = run.job.folder
        command = [sys.executable, "train.py", "--eval-only", "--explain", "--config-file", folder / "config.yaml"]
        command += ["--model-dir", run.model] if run.model else []
        command += ["--output-dir", folder / FOLDER]
        silent = os.environ | for_this_process() | {"TQDM_DISABLE": "1"}
        done = subprocess.run(command, cwd=checkout.root, env=silent, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode or read_explanation(run) is None:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            problems.append(f"{run.job}: {said[-1] if said else f'exit status {done.returncode}'}")
    return problems
