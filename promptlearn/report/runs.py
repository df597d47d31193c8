"""The runs of one protocol, as the report needs them."""

import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from basics import UserError, read_json
from promptlearn.experiments.discovery import discover, result_of
from promptlearn.experiments.found_runs import find_runs
from promptlearn.experiments.protocols import UNTRAINED, ZERO_SHOT, Job, Protocol
from promptlearn.experiments.results_table import (
    H_OF_MEANS,
    TARGETS,
    Line,
    averages,
    columns_of,
    has_one_class,
    method_namer,
    summarize,
    trained_shots,
)
from promptlearn.experiments.run_files import read_metrics, read_predictions
from promptlearn.experiments.shots import Shots, describe_shots, shots_order


@dataclass(frozen=True)
class Run:
    """A finished job with the name of its method and its results.json."""

    job: Job
    method: str
    result: dict

    @property
    def accuracy(self) -> float:
        """In percent."""
        return self.result["metrics"]["accuracy"]

    @property
    def model(self) -> Path | None:
        """The folder of the model that was tested, None if nothing was trained."""
        return None if self.job.row.trainer in UNTRAINED else (self.job.source or self.job).folder

    @cached_property
    def predictions(self) -> list[dict]:
        """The rows of predictions.csv, empty if the run left no such file or a damaged one."""
        return read_predictions(self.job.folder / "predictions.csv")

    @cached_property
    def epochs(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, empty if nothing was trained here."""
        return [] if self.job.source else read_metrics(self.job.folder / "metrics.csv")

    @cached_property
    def status(self) -> dict:
        """The content of status.json, empty if there is none."""
        try:
            status = read_json(self.job.folder / "status.json")
        except UserError:
            return {}
        return status if isinstance(status, dict) else {}

    @property
    def is_from_here(self) -> bool:
        """Whether the run was made on this machine."""
        return self.status.get("host") == socket.gethostname()


class Comparison:
    """All runs of one protocol.

    Attributes:
        lines: those of the results table, followed by the averages.
        measure: the column that ranks methods as a whole: H, the mean of targets, or the last column.
        stages: what was tested, in the protocol's order (base and new, or the datasets).
        datasets, shots: in order. Methods that train nothing have no shots.
        averaged: the datasets that H and averages are over: not those with a test of a single class.
        method: returns the name of a row's method, whatever the number of shots.
        methods: names that include what distinguishes variants, but not the shots; zero-shot CLIP first.
        untrained: the methods that train nothing.
        zero_shot: the name of zero-shot CLIP, None if it was not run.
        runs, missing: the finished jobs with their results, and the other jobs.

    Args:
        runs: the jobs, or the output folder that they are in.
        foreign_images: whether test images of runs from other machines are shown. Their files name paths of that
            machine, which here may be anything.
    """

    def __init__(self, protocol: Protocol, runs: Path | list[Job], foreign_images: bool = False):
        self.protocol = protocol
        self.foreign_images = foreign_images
        jobs = runs if isinstance(runs, list) else discover(protocol, runs)
        lines = summarize(protocol, jobs)
        self.lines = [*lines, *averages(protocol, lines)]
        self.measure = H_OF_MEANS if protocol.harmonic else TARGETS if protocol.transfer else columns_of(lines)[-1]
        self.stages = list(dict.fromkeys(job.stage.column for job in jobs))
        self.datasets = list(dict.fromkeys(job.row.dataset for job in jobs))
        left_out = {line.row.dataset for line in lines if line.one_class and not protocol.transfer}
        self.averaged = [name for name in self.datasets if name not in left_out]
        self.shots = trained_shots(jobs)
        self.method = method_namer((line.row for line in lines), with_shots=False)
        trainers = {self.method(job.row): job.row.trainer for job in jobs}
        self.methods = sorted(trainers, key=lambda name: trainers[name] != ZERO_SHOT)
        self.untrained = {name for name, trainer in trainers.items() if trainer in UNTRAINED}
        self.zero_shot = next((name for name, trainer in trainers.items() if trainer == ZERO_SHOT), None)
        results = {job: result_of(job) for job in jobs}
        tested = {job: result for job, result in results.items() if result and result["metrics"]}
        self.runs = [Run(job, self.method(job.row), result) for job, result in tested.items()]
        self.missing = [job for job, result in results.items() if not result]
        self._selected: dict[tuple[str, str], list[Run]] = {}  # method, dataset -> its runs, by seed and shots
        for run in sorted(self.runs, key=lambda run: (run.job.seed, shots_order(run.job.shots))):
            self._selected.setdefault((run.method, run.job.row.dataset), []).append(run)
        self._numbers = {name: number for number, name in enumerate(self.methods)}
        self._lines: dict[tuple[str, str], Line] = {}  # method, dataset -> its first line with the most shots
        for line in self.lines:
            if line.row.shots in (None, self.shots[-1]):
                self._lines.setdefault((self.method(line.row), line.row.dataset), line)

    def number(self, method: str) -> int:
        """Return the method's position, which decides its color."""
        return self._numbers[method]

    @property
    def most_shots(self) -> str:
        """The number of shots of sections that show only one, in words; empty if there is only one."""
        return describe_shots(self.shots[-1]) if len(self.shots) > 1 else ""

    def mean(self, method: str, dataset: str, column: str | None = None) -> float | None:
        """Return a method's mean with the comparison's most shots on a dataset (or AVERAGE), None if a run is missing.

        Args:
            column: a column of the table; default: the comparison's measure.
        """
        line = self._lines.get((method, dataset))
        return complete_mean(line, column or self.measure) if line else None

    def select(self, method: str, dataset: str, stage: str | None = None, shots: Shots | None = None) -> list[Run]:
        """Select the runs of a method on a dataset, by seed. Default: all stages, and the comparison's most shots.

        Of a method that trains nothing, it is one run of each stage, whatever the shots. Tests of a single class are
        left out.
        """
        runs = self._selected.get((method, dataset), [])
        runs = [run for run in runs if stage in (None, run.job.stage.column) and not has_one_class(run.result)]
        if method in self.untrained:
            first: dict[str, Run] = {}
            for run in runs:
                first.setdefault(run.job.stage.column, run)
            return list(first.values())
        return [run for run in runs if run.job.shots == (shots or self.shots[-1])]

    def forget_predictions(self) -> None:
        """Free the predictions read so far; they are read again when they are needed again."""
        for run in self.runs:
            run.__dict__.pop("predictions", None)

    def accuracies(self, method: str, dataset: str, stage: str, shots: Shots | None = None) -> list[float]:
        """Return the accuracies of the selected runs, in percent."""
        return [run.accuracy for run in self.select(method, dataset, stage, shots)]


def find_comparisons(
    folders: list[Path], output: Path | None = None, foreign_images: bool = False
) -> list[tuple[Comparison, Path]]:
    """Find what was compared in these folders, each with the folder of its page and figures: in `output`, if given.

    Raises:
        UserError: there is no finished run.
    """
    found = [
        (Comparison(each.protocol, each.jobs, foreign_images), (output or each.folder) / each.protocol.name)
        for each in find_runs(folders)
    ]
    found = [(comparison, folder) for comparison, folder in found if comparison.runs]
    if not found:
        names = ", ".join(map(str, folders))
        raise UserError(f"{names}: expected a finished run, got none. There is nothing to report yet.")
    return found


def complete_mean(line: Line, column: str) -> float | None:
    """Return a line's mean in a column, None if a run is missing."""
    return line.mean(column) if line.is_complete(column) else None
