"""Tables of the page: rows of cells that know how they are sorted."""

from dataclasses import dataclass, field

from dassl.experiments.report.explained import Explanation
from dassl.experiments.report.runs import HARMONIC, Comparison, Run

MISSING = "missing"


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a smaller text behind it, and what it is sorted by (None: last, whichever way)."""

    text: str
    detail: str = ""
    order: float | str | None = None
    best: bool = False
    method: int | None = None  # number of the method whose colour stands before the text


@dataclass(frozen=True)
class Table:
    """`numeric`: which columns hold numbers, which are aligned right and sorted from the greatest on first."""

    title: str
    header: list[str]
    rows: list[list[Cell]]
    numeric: list[bool] = field(default_factory=list)


def word(text: str, **more) -> Cell:
    return Cell(text, order=text, **more)


def number(value: float | None, digits: int = 2, detail: str = "", best: bool = False) -> Cell:
    text = MISSING if value is None else f"{value:,.{digits}f}"
    return Cell(text, detail, value, best)


def named(comparison: Comparison, method: str) -> Cell:
    """A method's name with its colour, sorted in the comparison's order."""
    place = comparison.methods.index(method)
    return Cell(method, order=place, method=place)


def accuracies(comparison: Comparison) -> list[Table]:
    """Mean and deviation of every data set, and the averages over data sets if there are several."""
    columns = [*comparison.columns, *([HARMONIC] if comparison.has_harmonic else [])]
    with_shots = len(comparison.shots) > 1
    means, rows = [], []
    for dataset in comparison.datasets:
        for shots in comparison.shots:
            values = {
                (method, column): comparison.mean(method, dataset, shots, column)
                for method in comparison.methods
                for column in columns
            }
            for method in comparison.methods:
                cells = [comparison.cell(method, dataset, shots, column) for column in comparison.columns]
                if not any(cells):
                    continue
                asked = max(cell.asked for cell in cells if cell)
                first = [word(dataset), named(comparison, method), *([number(shots, 0)] if with_shots else [])]
                measured = [accuracy(comparison, values, method, dataset, shots, column) for column in columns]
                rows.append([*first, *measured, number(asked, 0)])
    for shots in comparison.shots if len(comparison.datasets) > 1 else ():
        values = {
            (method, column): comparison.average(method, shots, column)
            for method in comparison.methods
            for column in columns
        }
        for method in comparison.methods:
            first = [named(comparison, method), *([number(shots, 0)] if with_shots else [])]
            means.append([*first, *(mean_cell(values, method, column) for column in columns)])
    shots_header = ["shots"] if with_shots else []
    tables = []
    if means:
        header = ["method", *shots_header, *columns]
        title = f"Averages over {len(comparison.datasets)} data sets"
        tables.append(Table(title, header, means, [False, *[True] * (len(header) - 1)]))
    header = ["data set", "method", *shots_header, *columns, "seeds"]
    tables.append(Table("Every data set", header, rows, [False, False, *[True] * (len(header) - 2)]))
    return tables


def mean_cell(values: dict[tuple[str, str], float | None], method: str, column: str, detail: str = "") -> Cell:
    """One of the means (method, column) -> value, marked if it is the column's greatest."""
    known = [value for (_, other), value in values.items() if other == column and value is not None]
    value = values[method, column]
    return number(value, detail=detail, best=len(known) > 1 and value == max(known))


def accuracy(comparison: Comparison, values: dict, method: str, dataset: str, shots: int, column: str) -> Cell:
    """A mean with its deviation; a cell that lacks runs says how many are there."""
    cell = comparison.cell(method, dataset, shots, column)
    if cell and cell.values and not cell.complete:
        return Cell(f"{cell.mean:.2f}", f"{len(cell.values)} of {cell.asked}", cell.mean)
    detail = f"± {cell.deviation:.2f}" if cell and cell.deviation is not None else ""
    return mean_cell(values, method, column, detail)


def runs(comparison: Comparison) -> Table:
    """Every run with what it took."""
    header = ["data set", "method", "shots", "seed", "column", "accuracy, %", "images"]
    header += ["trained parameters", "training, s", "s per epoch", "peak memory, MiB", "device", "draw"]
    rows = []
    for run in comparison.runs:
        row, result, seconds = run.job.row, run.result, run.result.get("seconds") or {}
        own = not run.job.source  # a test of another run's model trained nothing itself
        rows.append(
            [
                word(row.dataset),
                named(comparison, comparison.method(row)),
                number(row.shots, 0),
                number(run.job.seed, 0),
                word(run.job.stage.column),
                number(run.accuracy),
                number(result["metrics"].get("n"), 0),
                number(result.get("trained_parameters"), 0),
                number(seconds.get("train") if own else None, 1),
                number(seconds.get("per_epoch") if own else None, 2),
                number(result.get("peak_memory_mib"), 0),
                word(str(result.get("device", ""))),
                word(str(result.get("draw_hash") or "")[:8]),
            ]
        )
    numeric = [False, False, True, True, False, *[True] * 6, False, False]
    return Table("Every run", header, rows, numeric)


def words(comparison: Comparison, explained: dict[str, Explanation]) -> Table | None:
    """Learned text vectors with the nearest words of the vocabulary."""
    rows = []
    for method, explanation in explained.items():
        for vector in explanation.words:
            near = [Cell(text, f"{distance:.3f}", distance) for text, distance in vector["words"]]
            rows.append([named(comparison, method), word(vector["vector"]), number(vector["norm"], 3), *near])
    if not rows:
        return None
    most = max(len(row) for row in rows) - 3
    header = ["method", "vector", "norm", *(f"{i + 1}. nearest" for i in range(most))]
    return Table("Nearest words, with distances", header, rows, [False, False, True, *[False] * most])


def confusions(comparison: Comparison, found: dict[str, list[tuple[str, str, int, float]]]) -> Table:
    """`found`: method -> (true class, answer, images, share of the class in percent)."""
    rows = [
        [named(comparison, method), word(truth), word(answer), number(n, 0), number(share, 1)]
        for method, pairs in found.items()
        for truth, answer, n, share in pairs
    ]
    header = ["method", "true class", "answered", "images", "share of the class, %"]
    return Table("Most frequent confusions", header, rows, [False, False, False, True, True])


def missing(comparison: Comparison) -> list[str]:
    """The runs that are not there, a line each."""
    return [str(job) for job in comparison.missing]


def seeds_of(found: list[Run]) -> list[int]:
    return sorted({run.job.seed for run in found})
