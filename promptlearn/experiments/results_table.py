"""The table of results: one line for each method and dataset, holding every seed's accuracy in each column.

This is plain Python, not pandas: `dassl results` prints the table, and importing pandas takes longer (0.6 s) than that
command may take as a whole.
"""

import csv
import io
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from basics import write_atomic, write_json
from promptlearn.experiments.discovery import discover, result_of
from promptlearn.experiments.protocols import UNTRAINED, ZERO_SHOT, Job, Protocol, Row

H_OF_MEANS, H_OF_SEEDS, TARGETS, AVERAGE = "H", "H of seeds", "mean of targets", "average"


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        row: what was trained. An average over datasets has AVERAGE as its dataset.
        columns: {column: {seed: accuracy in percent}} of the finished runs.
        seeds: the number of seeds that every column should have.
        backbones: the backbones of the runs.
    """

    row: Row
    columns: dict[str, dict[int, float]]
    seeds: int
    backbones: frozenset[str] = frozenset()

    def is_complete(self, column: str) -> bool:
        """Whether no run is missing: none of the column's, or for H none of the line's."""
        needed = self.columns if column == H_OF_MEANS else [column]
        return all(len(self.columns[name]) == self.seeds for name in needed)

    def mean(self, column: str) -> float | None:
        """The mean of a column's finished runs, None if there are none.

        H is the harmonic mean of mean base and mean new accuracy (CoCoOp's convention), None if any run is missing.
        For an average over datasets, it is that of the averages.
        """
        if column == H_OF_MEANS:
            complete = self.is_complete(H_OF_MEANS)
            return statistics.harmonic_mean([self.mean("base"), self.mean("new")]) if complete else None
        return statistics.mean(self.columns[column].values()) if self.columns[column] else None

    def deviation(self, column: str) -> float | None:
        """The sample standard deviation (n - 1) over the seeds, None for fewer than two runs and for H."""
        values = self.columns.get(column, {}).values()
        return statistics.stdev(values) if len(values) > 1 else None


def summarise(protocol: Protocol, jobs: list[Job]) -> list[Line]:
    """One line for each row, including the derived columns; sorted by name, zero-shot CLIP first on each dataset."""
    shots = sorted({job.row.shots for job in jobs})
    results: dict[Row, dict[str, dict[int, dict | None]]] = {}  # row -> column -> seed -> result
    for job in sorted(jobs, key=_position):
        row, columns = job.row, [job.stage.column]
        if protocol.by_shots:
            # A method that trains nothing is the same with any number of shots.
            own = shots if row.trainer in UNTRAINED else [row.shots]
            row, columns = replace(row, shots=None), [_shots_column(n) for n in own]
            results.setdefault(row, {_shots_column(n): {} for n in shots})  # shots that only other methods have
        for column in columns:
            results.setdefault(row, {}).setdefault(column, {})[job.seed] = result_of(job)
    return [_line(protocol, row, of_row) for row, of_row in results.items()]


def _position(job: Job) -> tuple:
    """Where a job belongs in the table, whether it was requested or discovered."""
    row = job.row
    return row.dataset, row.trainer != ZERO_SHOT, row.trainer, row.config, row.variant, row.shots, job.stage.dataset


def _shots_column(shots: int) -> str:
    return f"{shots} shot" + ("s" if shots > 1 else "")


def _line(protocol: Protocol, row: Row, results: dict[str, dict[int, dict | None]]) -> Line:
    done = {column: {seed: r for seed, r in of.items() if r} for column, of in results.items()}
    columns = {column: {seed: r["metrics"]["accuracy"] for seed, r in of.items()} for column, of in done.items()}
    if protocol.harmonic:
        columns[H_OF_SEEDS] = _by_seed(statistics.harmonic_mean, [columns["base"], columns["new"]])
    if protocol.transfer:
        targets = [values for column, values in columns.items() if column != protocol.stages[0].column]
        columns[TARGETS] = _by_seed(statistics.mean, targets)
    backbones = frozenset(r.get("backbone", "") for of in done.values() for r in of.values())
    return Line(row, columns, max(map(len, results.values())), backbones)


def _by_seed(form: Callable, columns: list[dict[int, float]]) -> dict[int, float]:
    """Apply `form` to the accuracies of each seed that all columns have."""
    seeds = sorted(set.intersection(*map(set, columns)))
    return {seed: form([values[seed] for values in columns]) for seed in seeds}


def averages(lines: list[Line]) -> list[Line]:
    """Each method's mean over the datasets, seed by seed. Empty for a single dataset.

    The columns are empty for a method that lacks a run on any dataset or has other seeds on some: its average would be
    over something else.
    """
    datasets = {line.row.dataset for line in lines}
    methods: dict[Row, list[Line]] = {}
    for line in lines:
        methods.setdefault(replace(line.row, dataset=AVERAGE), []).append(line)
    found = []
    for row, own in methods.items():
        whole = len(own) == len(datasets) and all(line.is_complete(column) for line in own for column in line.columns)
        columns = {}
        for column in own[0].columns:
            values = [line.columns[column] for line in own]
            same_seeds = all(of.keys() == values[0].keys() for of in values)
            columns[column] = _by_seed(statistics.mean, values) if whole and same_seeds else {}
        found.append(Line(row, columns, own[0].seeds, frozenset().union(*(line.backbones for line in own))))
    return found if len(datasets) > 1 else []


def columns_of(lines: Iterable[Line]) -> list[str]:
    """All columns for a reader, with H, which no single run has, in front of H of seeds."""
    columns = dict.fromkeys(column for line in lines for column in line.columns)
    return [name for column in columns for name in ([H_OF_MEANS] if column == H_OF_SEEDS else []) + [column]]


def records(protocol: Protocol, lines: list[Line]) -> list[dict]:
    """The lines as plain dicts: the row's fields, {mean, deviation, n, missing, seeds} of each column, and H."""
    found = []
    for line in lines:
        record = dict(vars(line.row))
        for column, values in line.columns.items():
            record[column] = {
                "mean": line.mean(column),
                "deviation": line.deviation(column),
                "n": len(values),
                "missing": line.seeds - len(values),
                "seeds": {str(seed): value for seed, value in sorted(values.items())},
            }
        found.append(record | ({H_OF_MEANS: line.mean(H_OF_MEANS)} if protocol.harmonic else {}))
    return found


def as_csv(protocol: Protocol, lines: list[Line]) -> str:
    """The lines and their averages as CSV: the records without the single seeds. Missing figures are empty."""
    rows = []
    for record in records(protocol, [*lines, *averages(lines)]):
        row = {}
        for key, value in record.items():
            if isinstance(value, dict):
                row |= {f"{key}_{figure}": value[figure] for figure in ("mean", "deviation", "n", "missing")}
            else:
                row[key] = value
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0] if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_summary(protocol: Protocol, output: Path) -> None:
    """Write all of the protocol's results in `output` to summary.json and summary.csv in the protocol's folder."""
    lines = summarise(protocol, discover(protocol, output))
    summary = {
        "format": 1,
        "protocol": protocol.name,
        "rows": records(protocol, lines),
        "averages": records(protocol, averages(lines)),
    }
    write_json(summary, output / protocol.name / "summary.json")
    write_atomic(output / protocol.name / "summary.csv", as_csv(protocol, lines).encode())
