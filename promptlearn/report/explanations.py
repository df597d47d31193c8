"""Explanations of models: runs `train.py --explain` where they are missing, and reads them."""

import contextlib
import io
import tempfile
import zipfile
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from basics import UserError, read_json
from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.launcher import Starter, wait_or_kill
from promptlearn.report.runs import Comparison, Run

FOLDER = "explain"  # in the folder of a run
FORMAT = 2  # of explain.json
FEATURES = {"before", "after", "label", "classname"}  # the arrays in explain.npz
MAX_METHODS = 14  # explained, and tested against each other, on one page


@dataclass(frozen=True)
class Explanation:
    """The explanation of one model, as trainers/explain.py writes it.

    Attributes:
        towers: "text" and "image" -> layers and scenes (segments with `attends_to`, `prefilled` and so on).
        words: learned text vectors with the nearest words.
        features: arrays before (N, D) and after (N, D'), label (N,), classname (N,) of N test images.
    """

    towers: dict[str, dict]
    words: list[dict]
    features: dict[str, np.ndarray]


def read_explanation(run: Run) -> Explanation | None:
    """Read the explanation of a run's model; None if there is none, or it is of an earlier model or format."""
    folder = run.job.folder / FOLDER
    try:
        found = read_json(folder / "explain.json")
        if found["format"] != FORMAT or found["prompts_sha256"] != run.result["prompts_sha256"]:
            return None
        arrays = io.BytesIO((folder / "explain.npz").read_bytes())
        with np.load(arrays, allow_pickle=False) as features:
            complete = found["towers"] and FEATURES <= set(features)
            return Explanation(found["towers"], found["words"], dict(features)) if complete else None
    except (UserError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def models(comparison: Comparison, dataset: str) -> dict[str, Run]:
    """For each method, the run whose model is explained: the first seed that trained with the most shots."""
    found = {}
    for method in comparison.methods[:MAX_METHODS]:
        trained = [run for run in comparison.select(method, dataset) if run.job.source is None]
        if trained:
            found[method] = trained[0]
    return found


def explain_missing(runs: list[Run], checkout: Checkout) -> list[str]:
    """Run `train.py --explain` for the models without an explanation. Returns one line for each failure."""
    missing = [run for run in runs if read_explanation(run) is None]
    problems = []
    with contextlib.closing(Starter(checkout)) as start:
        for run in tqdm(missing, desc="explaining", unit="run", disable=None):
            status, lines = explain(run, start)
            if status or read_explanation(run) is None:
                problems.append(f"{run.job}: {lines[-1] if lines else f'exit status {status}'}")
    return problems


def explain(run: Run, start: Starter) -> tuple[int, list[str]]:
    """Run `train.py --explain` for a model. Returns its exit status and the lines of its stderr."""
    folder = run.job.folder
    arguments = ["--eval-only", "--explain", "--config-file", str(folder / "config.yaml")]
    arguments += ["--model-dir", str(run.model)] if run.model else []
    arguments += ["--output-dir", str(folder / FOLDER)]
    with tempfile.NamedTemporaryFile() as stderr:
        process = start(arguments, stderr)
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            wait_or_kill(process)
            raise
        stderr.seek(0)
        return status, stderr.read().decode(errors="replace").strip().splitlines()
