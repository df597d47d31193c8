"""Explanations of models: runs `train.py --explain` where they are missing, and reads them."""

import contextlib
import io
import math
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from basics import show_progress
from promptlearn.experiments import run_files
from promptlearn.experiments.backends.local import Starter, wait_or_kill
from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.run_files import read_checked, report_damage
from promptlearn.report.runs import Comparison, Run

FOLDER = "explain"  # in the folder of a run
FORMAT = 2  # of explain.json
FEATURES = {"before", "after", "label", "classname"}  # the arrays in explain.npz
MAPS = {"attention", "pictures", "tokens", "layers", "truth", "predicted"}  # not in files of older versions
LARGEST = 2**28  # bytes of these arrays
MAX_METHODS = 14  # explained, and tested against each other, on one page


@dataclass(frozen=True)
class Explanation:
    """The explanation of one model, as trainers/explain.py writes it.

    Attributes:
        towers: "text" and "image" -> layers and scenes (segments with `attends_to`, `prefilled` and so on).
        words: learned text vectors with the nearest words.
        features: arrays before (N, D) and after (N, D'), label (N,), classname (N,) of N test images.
        maps: the arrays of `trainers.attention_maps`; empty without an image transformer.
    """

    towers: dict[str, dict]
    words: list[dict]
    features: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]


def read_explanation(run: Run) -> Explanation | None:
    """Read the explanation of a run's model; None if there is none, it is damaged, or of an earlier model or format."""
    folder = run.job.folder / FOLDER
    found = read_checked(folder / "explain.json", run_files.ExplanationFile)
    if found is None or found["format"] != FORMAT or found["prompts_sha256"] != run.result.get("prompts_sha256"):
        return None
    arrays = read_arrays(folder / "explain.npz")
    if not found["towers"] or not arrays:
        return None
    maps = {name: array for name, array in arrays.items() if name in MAPS}
    features = {name: array for name, array in arrays.items() if name in FEATURES}
    return Explanation(found["towers"], found["words"], features, maps)


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read the arrays of explain.npz; None if there is none, or if it is damaged, which is reported."""
    try:
        if not path.is_file():
            return None
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
            if sizes.keys() not in (FEATURES, FEATURES | MAPS) or sum(sizes.values()) > LARGEST:
                raise ValueError(f"it does not hold the arrays {', '.join(sorted(FEATURES))} and no others but maps")
            arrays = {}
            for name in sizes:  # not np.load, which reads as much as an entry unpacks to
                with archive.open(f"{name}.npy") as entry:
                    content = io.BytesIO(entry.read(sizes[name] + 1))
                arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
        n = len(arrays["label"])
        right = all(arrays[name].ndim == 2 and arrays[name].dtype.kind == "f" for name in ("before", "after"))
        right = right and arrays["label"].shape == arrays["classname"].shape == (n,)
        right = right and arrays["label"].dtype.kind == "i" and arrays["classname"].dtype.kind == "U"
        if not right or any(len(arrays[name]) != n for name in FEATURES):
            raise ValueError("its arrays do not have the shapes of features")
        if MAPS <= arrays.keys() and not are_maps(arrays):
            raise ValueError("its arrays do not have the shapes of attention maps")
        if not all(math.isfinite(float(np.abs(arrays[name]).sum())) for name in ("before", "after")):
            raise ValueError("its features are not finite")
        return arrays
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        report_damage(path, error)
        return None


def are_maps(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether arrays of these names are what `trainers.attention_maps` returns."""
    attention, pictures = arrays["attention"], arrays["pictures"]
    expected = *(len(arrays[name]) for name in ("truth", "tokens", "layers")), *attention.shape[3:]
    kinds = [arrays[name].dtype.kind for name in ("attention", "pictures", "tokens", "layers", "truth", "predicted")]
    return (
        kinds == ["f", "u", "U", "i", "U", "U"]
        and attention.ndim == 5
        and attention.shape == expected
        and attention.size > 0
        and pictures.ndim == 3
        and pictures.size > 0
        and len(pictures) == len(attention) == len(arrays["predicted"])
        and all(arrays[name].ndim == 1 for name in ("tokens", "layers", "truth", "predicted"))
        and bool(np.isfinite(attention).all())
    )


def models(comparison: Comparison, dataset: str) -> dict[str, Run]:
    """Choose the run whose model is explained for each method: the first seed with the most shots."""
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
        for run in show_progress(missing, "explaining", unit="run", delay=0, leave=True):
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
