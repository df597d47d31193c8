"""The runs of one protocol, as the report needs them."""

import socket
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from basics import UserError, read_json
from promptlearn.experiments.discovery import discover, find_protocols, result_of
from promptlearn.experiments.protocols import UNTRAINED, ZERO_SHOT, Job, Protocol, Row
from promptlearn.experiments.results_table import (
    H_OF_MEANS,
    TARGETS,
    Line,
    averages,
    columns_of,
    method_namer,
    summarize,
)
from promptlearn.experiments.run_files import read_metrics, read_predictions
from promptlearn.experiments.shots import Shots, shots_order


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
    """All runs of one protocol in an output folder.

    Attributes:
        lines: those of the results table, followed by the averages.
        measure: the column that ranks methods as a whole: H, the mean of targets, or the last column.
        stages: what was tested, in the protocol's order (base and new, or the datasets).
        datasets, shots: in order.
        methods: names that include what distinguishes variants, but not the shots; zero-shot CLIP first.
        untrained: the methods that train nothing.
        zero_shot: the name of zero-shot CLIP, None if it was not run.
        runs, missing: the finished jobs with their results, and the other jobs.

    Args:
        foreign_images: whether test images of runs from other machines are shown. Their files name paths of that
            machine, which here may be anything.
    """

    def __init__(self, protocol: Protocol, output: Path, foreign_images: bool = False):
        self.protocol = protocol
        self.foreign_images = foreign_images
        jobs = discover(protocol, output)
        lines = summarize(protocol, jobs)
        self.lines = [*lines, *averages(lines)]
        self.measure = H_OF_MEANS if protocol.harmonic else TARGETS if protocol.transfer else columns_of(lines)[-1]
        self.stages = list(dict.fromkeys(job.stage.column for job in jobs))
        self.datasets = list(dict.fromkeys(job.row.dataset for job in jobs))
        self.shots = sorted({job.shots for job in jobs}, key=shots_order)
        self._name = method_namer(_without_shots(line.row) for line in lines)
        trainers = {self.method(job.row): job.row.trainer for job in jobs}
        self.methods = sorted(trainers, key=lambda name: trainers[name] != ZERO_SHOT)
        self.untrained = {name for name, trainer in trainers.items() if trainer in UNTRAINED}
        self.zero_shot = next((name for name, trainer in trainers.items() if trainer == ZERO_SHOT), None)
        # The significance tests treat the same method with other shots as another method.
        self._numbers = {line.method: self.methods.index(self.method(line.row)) for line in lines}
        self._numbers |= {method: number for number, method in enumerate(self.methods)}
        results = {job: result_of(job) for job in jobs}
        tested = {job: result for job, result in results.items() if result and result["metrics"]}
        self.runs = [Run(job, self.method(job.row), result) for job, result in tested.items()]
        self.missing = [job for job, result in results.items() if not result]

    def method(self, row: Row) -> str:
        """Return the name of a row's method, whatever the number of shots."""
        return self._name(_without_shots(row))

    def number(self, method: str) -> int:
        """Return the method's position, which decides its color and is the same for any number of shots."""
        return self._numbers[method]

    def mean(self, method: str, dataset: str, column: str | None = None) -> float | None:
        """Return a method's mean with the most shots on a dataset (or AVERAGE), None if a run is missing.

        Args:
            column: a column of the table; default: the comparison's measure.
        """
        own = [line for line in self.lines if line.row.dataset == dataset and self.method(line.row) == method]
        most = max(own, key=lambda line: shots_order(line.row.shots or 0), default=None)
        return complete_mean(most, column or self.measure) if most else None

    def select(self, method: str, dataset: str, stage: str | None = None, shots: Shots | None = None) -> list[Run]:
        """Select the runs of a method on a dataset, by seed. Default: all stages, and the most shots."""
        runs = [run for run in self.runs if run.job.row.dataset == dataset and run.method == method]
        shots = shots or max((run.job.shots for run in runs), key=shots_order, default=0)
        runs = [run for run in runs if run.job.shots == shots and stage in (None, run.job.stage.column)]
        return sorted(runs, key=lambda run: run.job.seed)

    def accuracies(self, method: str, dataset: str, stage: str, shots: Shots | None = None) -> list[float]:
        """Return the accuracies of the selected runs, in percent."""
        return [run.accuracy for run in self.select(method, dataset, stage, shots)]


def find_comparisons(folder: Path, foreign_images: bool = False) -> tuple[list[Comparison], Path]:
    """Find what was compared in `folder`, and the output folder: `folder`, or a protocol's parent.

    Raises:
        UserError: there is no finished run.
    """
    protocols, output = find_protocols(folder)
    found = [Comparison(protocol, output, foreign_images) for protocol in protocols]
    found = [comparison for comparison in found if comparison.runs]
    if not found:
        raise UserError(f"{output}: expected a finished run, got none. There is nothing to report yet.")
    return found, output


def complete_mean(line: Line, column: str) -> float | None:
    """Return a line's mean in a column, None if a run is missing."""
    return line.mean(column) if line.is_complete(column) else None


def _without_shots(row: Row) -> Row:
    return replace(row, shots=None)
