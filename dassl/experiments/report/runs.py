"""The runs below a folder as the report looks at them: one comparison for each protocol that was run."""

import csv
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dassl.experiments.protocols import PROTOCOLS, UNTRAINED, ZERO_SHOT, Job, Protocol, Row
from dassl.experiments.results import Cell, discover, result_of
from dassl.utils import UserError

NAME_OF_ZERO_SHOT = "zero-shot CLIP"
BASE, NEW, HARMONIC = "base", "new", "H"


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

    def predictions(self) -> list[dict]:
        """The rows of predictions.csv; none if the run left no such file."""
        path = self.job.folder / "predictions.csv"
        if not path.is_file():
            return []
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


class Comparison:
    """All runs of one protocol.

    Attributes:
        name: the protocol's.
        columns: what was measured, in the protocol's order.
        datasets, shots: in order.
        runs, missing: the jobs that are done, with their results; the others.
    """

    def __init__(self, name: str, jobs: list[Job]):
        self.name = name
        self.columns = list(dict.fromkeys(job.stage.column for job in jobs))
        self.datasets = list(dict.fromkeys(job.row.dataset for job in jobs))
        self.shots = sorted({job.row.shots for job in jobs})
        self._configs: dict[str, set[str]] = {}
        for job in jobs:
            self._configs.setdefault(job.row.trainer, set()).add(job.row.config)
        self.methods = sorted(dict.fromkeys(map(self.method, [j.row for j in jobs])), key=NAME_OF_ZERO_SHOT.__ne__)
        found = [(job, result_of(job)) for job in jobs]
        self.runs = [Run(job, result) for job, result in found if result]
        self.missing = [job for job, result in found if not result]

    def method(self, row: Row) -> str:
        """The name of a row's method; its configuration is part of it where several were run."""
        name = NAME_OF_ZERO_SHOT if row.trainer == ZERO_SHOT else row.trainer
        return name if len(self._configs[row.trainer]) == 1 else f"{name} ({row.config})"

    @property
    def has_harmonic(self) -> bool:
        return {BASE, NEW} <= set(self.columns)

    @cached_property
    def _cells(self) -> dict[tuple, Cell]:
        asked: dict[tuple, dict[int, float | None]] = {}
        for run in self.runs:
            asked.setdefault(self._key(run.job), {})[run.job.seed] = run.accuracy
        for job in self.missing:
            asked.setdefault(self._key(job), {})[job.seed] = None
        return {
            key: Cell({seed: value for seed, value in seeds.items() if value is not None}, asked=len(seeds))
            for key, seeds in asked.items()
        }

    def _key(self, job: Job) -> tuple:
        return self.method(job.row), job.row.dataset, job.row.shots, job.stage.column

    def cell(self, method: str, dataset: str, shots: int, column: str) -> Cell | None:
        """The accuracies over the seeds; None if no such run was asked for."""
        return self._cells.get((method, dataset, shots, column))

    def mean(self, method: str, dataset: str, shots: int, column: str) -> float | None:
        """The mean over the seeds in percent, or of column H the harmonic mean of the means; None if a run lacks."""
        if column == HARMONIC:
            means = [self.mean(method, dataset, shots, each) for each in (BASE, NEW)]
            return None if None in means else statistics.harmonic_mean(means)
        cell = self.cell(method, dataset, shots, column)
        return cell.mean if cell and cell.complete else None

    def average(self, method: str, shots: int, column: str) -> float | None:
        """The mean over the data sets, or of column H the harmonic mean of those; None if a run lacks."""
        if column == HARMONIC:
            means = [self.average(method, shots, each) for each in (BASE, NEW)]
            return None if None in means else statistics.harmonic_mean(means)
        means = [self.mean(method, dataset, shots, column) for dataset in self.datasets]
        return None if None in means else statistics.mean(means)

    def of(self, method: str, dataset: str, column: str | None = None) -> list[Run]:
        """The runs of a method on a data set with the most shots, by seed; of one column if it is named."""
        runs = [run for run in self.runs if run.job.row.dataset == dataset and self.method(run.job.row) == method]
        most = max((run.job.row.shots for run in runs), default=0)
        runs = [run for run in runs if run.job.row.shots == most and column in (None, run.job.stage.column)]
        return sorted(runs, key=lambda run: run.job.seed)

    def typical(self, method: str, key: str) -> float | None:
        """The median over a method's runs that trained of a figure in results.json ("seconds.train")."""
        values = []
        for run in self.runs:
            if self.method(run.job.row) == method and not run.job.source:
                value = run.result
                for part in key.split("."):
                    value = (value or {}).get(part)
                values.append(value)
        values = [value for value in values if value is not None]
        return statistics.median(values) if values else None


def read_comparisons(folder: Path) -> list[Comparison]:
    """A comparison for each protocol that has runs in `folder`.

    Raises:
        UserError: there is no result.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder (expected: the --output folder of a protocol such as base2new)")
    found = [Comparison(protocol.name, jobs) for protocol in PROTOCOLS.values() if (jobs := jobs_in(protocol, folder))]
    found = [comparison for comparison in found if comparison.runs]
    if not found:
        raise UserError(f"{folder} holds no result of a protocol yet (known: {', '.join(PROTOCOLS)})")
    return found


def jobs_in(protocol: Protocol, folder: Path) -> list[Job]:
    """The protocol's jobs in an output folder, or in what is in it."""
    return discover(protocol, folder / protocol.name) or discover(protocol, folder)
