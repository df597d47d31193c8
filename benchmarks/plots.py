"""Plots of time and memory of both paths against the number of classes, prompts, and images per batch."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

from basics import write_json
from benchmarks.measure import training_row  # noqa: E402
from benchmarks.methods import Case  # noqa: E402

LABELS = {"classes": "classes C", "prompts": "prompts K", "batch": "images per batch B"}
MEASURES = {"s": "seconds per step", "MiB": "MiB above the model"}


def plot_sweeps(case: Case, sweeps: dict[str, tuple[int, ...]], folder: Path, rounds: int, threads: int) -> int:
    """Measure a case with one number changed at a time. Writes FOLDER/METHOD.svg, and the rows to METHOD.json.

    Returns:
        The exit status: 1 if the numbers of the two paths differ in any row.
    """
    rows = {key: [] for key in sweeps}
    for key, value in ((key, value) for key, values in sweeps.items() for value in values):
        rows[key].append(training_row(replace(case, **{key: value}), rounds, threads))
        write_json(rows, folder / f"{case.method}.json")
        print(f"{case.method}: {key} {value}: done", file=sys.stderr, flush=True)
    draw(case, rows, folder)
    return int(any(point["numbers"] == "WRONG" for points in rows.values() for point in points))


def draw(case: Case, rows: dict[str, list[dict]], folder: Path) -> None:
    """Write FOLDER/METHOD.svg. `rows`: by the number that changes."""
    figure, axes = plt.subplots(len(MEASURES), len(rows), figsize=(4 * len(rows), 3 * len(MEASURES)), squeeze=False)
    for column, (key, points) in enumerate(rows.items()):
        for row, (unit, label) in enumerate(MEASURES.items()):
            axis = axes[row][column]
            for path, mark in (("plain", "o--"), ("fast", "s-")):
                axis.plot([p[key] for p in points], [p[f"{path} {unit}"] for p in points], mark, label=path)
            axis.set(xlabel=LABELS[key], ylabel=label, ylim=(0, None))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].legend(["plain path", "ours"])
    figure.suptitle(f"{case.method}: K = {case.prompts}, C = {case.classes}, B = {case.batch} where not varied")
    figure.tight_layout()
    figure.savefig(folder / f"{case.method}.svg")
    plt.close(figure)
