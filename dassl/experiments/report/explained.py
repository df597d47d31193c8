"""What runs show of their insides: `train.py --explain` leaves it in a run's folder, this makes it and reads it back."""

import sys
import tempfile
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from dassl.experiments.checkout import Checkout
from dassl.experiments.launcher import run as run_train
from dassl.experiments.report.runs import Comparison, Run
from dassl.utils import UserError, read_json

FOLDER = "explain"  # below the folder of a run


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


def explanation(run: Run) -> Explanation | None:
    """What was written about the run's model; None if there is nothing, or it is about an earlier model."""
    folder = run.job.folder / FOLDER
    try:
        found = read_json(folder / "explain.json")
        if found["prompts_sha256"] != run.result["prompts_sha256"]:
            return None
        with np.load(folder / "explain.npz") as arrays:  # numpy refuses pickled objects
            return Explanation(found["towers"], found["words"], dict(arrays))
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return None


def models(comparison: Comparison, dataset: str) -> dict[str, Run]:
    """For each method the run that its model is looked at in: the most shots, the first seed that trained."""
    found = {}
    for method in comparison.methods:
        trained = [run for run in comparison.of(method, dataset) if run.job.source is None]
        if trained:
            found[method] = trained[0]
    return found


def explain_missing(runs: list[Run], checkout: Checkout) -> list[str]:
    """Let train.py explain the models that are not explained yet; return what went wrong, a line each."""
    missing = [run for run in runs if explanation(run) is None]
    problems = []
    with tqdm(missing, desc="explaining", unit="run", disable=None) as bar:
        for run in bar:
            folder = run.job.folder
            command = ["train.py", "--config-file", checkout.shown(folder / "config.yaml"), "--eval-only", "--explain"]
            command += ["--model-dir", checkout.shown(run.model)] if run.model else []
            with tempfile.TemporaryFile() as stderr:
                status = run_train(
                    [*command, "--output-dir", checkout.shown(folder / FOLDER)], checkout.root, stderr, bar
                )
                stderr.seek(0)
                said = stderr.read().decode(errors="replace").strip().splitlines()
            if status or explanation(run) is None:
                problems.append(f"{run.job}: {said[-1] if said else f'exit status {status}'}")
                tqdm.write(f"not explained: {problems[-1]}", file=sys.stderr)
    return problems
