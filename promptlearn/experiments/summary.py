"""Runs gathered into lines: mean, deviation and n of each column, harmonic means, averages over data sets."""

import csv
import io
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from basics import write_atomic, write_json
from promptlearn.experiments.protocols import UNTRAINED, ZERO_SHOT, Job, Protocol, Row
from promptlearn.experiments.results import discover, result_of

H_OF_MEANS, H_OF_SEEDS, TARGETS, AVERAGE = "H", "H of seeds", "mean of targets", "average"


@dataclass(frozen=True)
class Cell:
    """The accuracies of one line's seeds in one column, in percent."""

    values: dict[int, float]  # seed -> accuracy
    asked: int  # number of seeds that should be there

    @property
    def complete(self) -> bool:
        return len(self.values) == self.asked

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation (n - 1); None for a single seed."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if self.mean is None:
            return "missing"
        spread = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:.2f}{spread}" + ("" if self.complete else f" ({len(self.values)} of {self.asked})")


@dataclass(frozen=True)
class Line:
    """One line of the table with its cells, column -> Cell. The average over data sets has AVERAGE as its data set."""

    row: Row
    cells: dict[str, Cell]
    backbones: frozenset[str] = field(default_factory=frozenset)  # of its runs

    @property
    def complete(self) -> bool:
        return all(cell.complete for cell in self.cells.values())

    @property
    def h(self) -> float | None:
        """The harmonic mean of mean base and mean new accuracy (CoCoOp's convention); None unless all runs are there.

        For an average it is that of the averages.
        """
        if not {"base", "new"} <= self.cells.keys() or not self.complete:
            return None
        return statistics.harmonic_mean([self.cells["base"].mean, self.cells["new"].mean])


def summarise(protocol: Protocol, jobs: list[Job]) -> list[Line]:
    """One Line per row with the columns that are formed of others; by name, zero-shot CLIP first on each data set."""
    of_row: dict[Row, dict[str, list[Job]]] = {}
    shots = sorted({job.row.shots for job in jobs})
    for job in sorted(jobs, key=place):
        row, columns = job.row, [job.stage.column]
        if protocol.by_shots:
            # A method that trains nothing is the same with any number of shots.
            own = shots if row.trainer in UNTRAINED else [row.shots]
            row, columns = replace(row, shots=None), [shots_column(n) for n in own]
        for column in columns:
            of_row.setdefault(row, {}).setdefault(column, []).append(job)
    return [line_of(protocol, row, columns, shots) for row, columns in of_row.items()]


def place(job: Job) -> tuple:
    """Where a job stands in the table, the same whether it was asked for or found."""
    row = job.row
    return row.dataset, row.trainer != ZERO_SHOT, row.trainer, row.config, row.variant, row.shots, job.stage.dataset


def shots_column(shots: int) -> str:
    return f"{shots} shot" + ("s" if shots > 1 else "")


def line_of(protocol: Protocol, row: Row, columns: dict[str, list[Job]], shots: list[int]) -> Line:
    results = {column: {job.seed: result_of(job) for job in jobs} for column, jobs in columns.items()}
    if protocol.by_shots:  # a number of shots that only other methods have is missing here
        results = {name: results.get(name, {}) for name in map(shots_column, shots)}
    asked = max(len(of_column) for of_column in results.values())
    done = {column: {seed: r for seed, r in of.items() if r} for column, of in results.items()}
    cells = {
        column: Cell({seed: r["metrics"]["accuracy"] for seed, r in of.items()}, asked) for column, of in done.items()
    }
    if protocol.harmonic:
        cells[H_OF_SEEDS] = by_seed(statistics.harmonic_mean, [cells["base"], cells["new"]])
    if protocol.transfer:
        targets = [cells[stage] for stage in cells if stage != protocol.stages[0].column]
        cells[TARGETS] = by_seed(statistics.mean, targets)
    backbones = frozenset(r.get("backbone", "") for of in done.values() for r in of.values())
    return Line(row, cells, backbones)


def by_seed(form, cells: list[Cell]) -> Cell:
    """Of the seeds that all cells have: `form` of their accuracies."""
    seeds = set.intersection(*(set(cell.values) for cell in cells))
    values = {seed: form([cell.values[seed] for cell in cells]) for seed in sorted(seeds)}
    return Cell(values, max(cell.asked for cell in cells))


def averages(lines: list[Line]) -> list[Line]:
    """For each method: its mean over the data sets, seed by seed. Empty for a single data set.

    A method that lacks a run on any of the data sets, or has other seeds on some, has no averages: they would be of
    something else.
    """
    datasets = {line.row.dataset for line in lines}
    if len(datasets) < 2:
        return []
    methods: dict[Row, list[Line]] = {}
    for line in lines:
        methods.setdefault(replace(line.row, dataset=AVERAGE), []).append(line)
    found = []
    for row, own in methods.items():
        cells = {}
        for column in own[0].cells:
            parts = [line.cells[column] for line in own]
            alike = len({frozenset(part.values) for part in parts}) == 1
            whole = len(own) == len(datasets) and alike and all(line.complete for line in own)
            cells[column] = by_seed(statistics.mean, parts) if whole else Cell({}, parts[0].asked)
        found.append(Line(row, cells, frozenset().union(*(line.backbones for line in own))))
    return found


def columns_of(lines: Iterable[Line]) -> list[str]:
    """All columns, in the order in which they first appear."""
    return list(dict.fromkeys(column for line in lines for column in line.cells))


def records(protocol: Protocol, lines: list[Line]) -> list[dict]:
    """The lines as plain dicts: the row's names, {mean, deviation, n, missing, seeds} of each column, and H."""
    rows = []
    for line in lines:
        row = dict(vars(line.row))
        for column, cell in line.cells.items():
            row[column] = {
                "mean": cell.mean,
                "deviation": cell.deviation,
                "n": len(cell.values),
                "missing": cell.asked - len(cell.values),
                "seeds": {str(seed): value for seed, value in sorted(cell.values.items())},
            }
        rows.append(row | ({H_OF_MEANS: line.h} if protocol.harmonic else {}))
    return rows


def shown_columns(protocol: Protocol, lines: list[Line]) -> list[str]:
    """The columns of a table for people, in which H, which no single run has, stands before H of seeds."""
    columns = columns_of(lines)
    if protocol.harmonic:
        columns.insert(columns.index(H_OF_SEEDS), H_OF_MEANS)
    return columns


def as_csv(protocol: Protocol, lines: list[Line]) -> str:
    """The lines and their averages as CSV: mean, deviation, n and missing of each column. What is missing is empty."""
    columns, figures = columns_of(lines), ("mean", "deviation", "n", "missing")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    named = ["dataset", "trainer", "config", "shots", "variant"]
    formed = [H_OF_MEANS] if protocol.harmonic else []
    writer.writerow([*named, *(f"{column}_{figure}" for column in columns for figure in figures), *formed])
    for row in records(protocol, [*lines, *averages(lines)]):
        cells = [row[column][figure] for column in columns for figure in figures]
        writer.writerow([*(row[name] for name in named), *cells, *(row[name] for name in formed)])
    return text.getvalue()


def write_summary(protocol: Protocol, output: Path) -> None:
    """Write everything of the protocol found in `output` to summary.json and summary.csv in its folder."""
    lines = summarise(protocol, discover(protocol, output))
    summary = {
        "format": 1,
        "protocol": protocol.name,
        "rows": records(protocol, lines),
        "averages": records(protocol, averages(lines)),
    }
    write_json(summary, output / protocol.name / "summary.json")
    write_atomic(output / protocol.name / "summary.csv", as_csv(protocol, lines).encode())
