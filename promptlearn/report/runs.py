"""The runs of one protocol as the report looks at them."""

import csv
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from promptlearn.experiments.protocols import UNTRAINED, ZERO_SHOT, Job, Protocol, Row
from promptlearn.experiments.results import discover, result_of
from promptlearn.experiments.summary import H_OF_MEANS, TARGETS, Cell, Line, averages, columns_of, summarise
from promptlearn.experiments.tables import namer


@dataclass(frozen=True)
class Run:
    """One job that is done, with what it left."""

    job: Job
    result: dict

    @property
    def accuracy(self) -> float:
        """In percent."""
        return self.result["metrics"]["accuracy"]

    @property
    def model(self) -> Path | None:
        """The folder of the model that was tested; None if nothing was trained."""
        return None if self.job.row.trainer in UNTRAINED else (self.job.source or self.job).folder

    @cached_property
    def predictions(self) -> list[dict]:
        """The rows of predictions.csv; none if the run left no such file."""
        path = self.job.folder / "predictions.csv"
        if not path.is_file():
            return []
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


class Comparison:
    """All runs of one protocol in an output folder.

    Attributes:
        lines: of `dassl results`'s table, those of the averages at the end.
        measure: the column by which methods are compared as a whole: H, the mean of targets, or the last one.
        stages: what was measured, in the protocol's order (base and new, or the data sets tested on).
        datasets, shots, methods: in order; methods by name, with what tells their variants apart, zero-shot CLIP first.
        untrained: the methods that train nothing.
        runs, missing: the jobs that are done, with their results; the others.
    """

    def __init__(self, protocol: Protocol, output: Path):
        self.protocol = protocol
        jobs = discover(protocol, output)
        lines = summarise(protocol, jobs)
        self.lines = [*lines, *averages(lines)]
        self.measure = H_OF_MEANS if protocol.harmonic else TARGETS if protocol.transfer else columns_of(lines)[-1]
        self.stages = list(dict.fromkeys(job.stage.column for job in jobs))
        self.datasets = list(dict.fromkeys(job.row.dataset for job in jobs))
        self.shots = sorted({job.row.shots for job in jobs})
        self._name = namer([replace(line, row=without_shots(line.row)) for line in lines])
        names = {self.method(job.row): job.row.trainer for job in jobs}
        self.methods = sorted(names, key=lambda name: names[name] != ZERO_SHOT)
        with_shots = namer(lines)  # as the statistics name them, to which other numbers of shots are other methods
        self._places = {with_shots(line.row): self.methods.index(self.method(line.row)) for line in lines}
        self._places |= {method: place for place, method in enumerate(self.methods)}
        self.untrained = {name for name, trainer in names.items() if trainer in UNTRAINED}
        self.zero_shot = next((name for name, trainer in names.items() if trainer == ZERO_SHOT), None)
        found = [(job, result_of(job)) for job in jobs]
        self.runs = [Run(job, result) for job, result in found if result]
        self.missing = [job for job, result in found if not result]

    def method(self, row: Row) -> str:
        """The name of a row's method, whatever the number of shots."""
        return self._name(without_shots(row))

    def number(self, method: str) -> int:
        """The method's place, which decides its colour, the same with any number of shots."""
        return self._places[method]

    def line(self, method: str, place: str) -> Line | None:
        """The line of a method on a data set, or of its AVERAGE, with the most shots."""
        own = [line for line in self.lines if line.row.dataset == place and self.method(line.row) == method]
        return max(own, key=lambda line: line.row.shots or 0, default=None)

    def measured(self, line: Line | None, column: str | None = None) -> float | None:
        """A line's mean in a column (default: the comparison's measure); None if a run lacks."""
        column = column or self.measure
        if line is None or column == H_OF_MEANS:
            return line.h if line else None
        cell = line.cells.get(column)
        return cell.mean if cell and cell.complete else None

    def of(self, method: str, dataset: str, stage: str | None = None, shots: int | None = None) -> list[Run]:
        """The runs of a method on a data set by seed, of one stage if it is named; default: with the most shots."""
        runs = [run for run in self.runs if run.job.row.dataset == dataset and self.method(run.job.row) == method]
        wanted = shots if shots else max((run.job.row.shots for run in runs), default=0)
        runs = [run for run in runs if run.job.row.shots == wanted and stage in (None, run.job.stage.column)]
        return sorted(runs, key=lambda run: run.job.seed)

    def spread(self, method: str, dataset: str, stage: str, shots: int | None = None) -> Cell:
        """The accuracies of such runs as a cell that has all it asks for."""
        values = {run.job.seed: run.accuracy for run in self.of(method, dataset, stage, shots)}
        return Cell(values, asked=len(values))

    def typical(self, method: str, figure: Callable[[dict], float | None]) -> float | None:
        """The median over a method's trainings of a figure in their results.json."""
        runs = [run for run in self.runs if self.method(run.job.row) == method and not run.job.source]
        values = [value for run in runs if (value := figure(run.result)) is not None]
        return statistics.median(values) if values else None


def without_shots(row: Row) -> Row:
    return replace(row, shots=None)
