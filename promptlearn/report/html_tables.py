"""Tables of the page: rows of cells with their sort order."""

from dataclasses import dataclass

from dassl.config import flatten
from promptlearn.experiments.published import AVERAGE, Published, compare
from promptlearn.experiments.results_table import CALIBRATION, Line, best_lines, columns_of
from promptlearn.experiments.shots import Shots, shots_order
from promptlearn.experiments.significance import ALPHA, Difference
from promptlearn.report.explanations import Explanation
from promptlearn.report.runs import Comparison

MISSING = "missing"
OF_A_RUN = ("OUTPUT_DIR", "SEED", "RESUME", "DATASET.ROOT", "DATASET.NAME", "DATASET.SUBSAMPLE_CLASSES")  # settings


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a smaller text after it, and what it is sorted by (None: always last)."""

    text: str
    detail: str = ""
    order: float | str | None = None
    best: bool = False
    method: int | None = None  # number of the method whose color precedes the text


@dataclass(frozen=True)
class Table:
    """Rows under a header.

    Attributes:
        numeric: which columns hold numbers; they are right-aligned and sorted in descending order first.
        folded: collapsed until the reader opens it.
    """

    title: str
    header: list[str]
    rows: list[list[Cell]]
    numeric: list[bool]
    folded: bool = False


NONE = Cell("")
MANY = 40  # rows that the page shows only on demand


def word(text: str, **more) -> Cell:
    return Cell(text, order=text, **more)


def number(value: float | None, digits: int = 2, detail: str = "", best: bool = False) -> Cell:
    text = MISSING if value is None else f"{value:,.{digits}f}"
    return Cell(text, detail, value, best)


def images_per_class(shots: Shots | None) -> Cell:
    return NONE if shots is None else Cell(str(shots), order=shots_order(shots))


def named(comparison: Comparison, method: str) -> Cell:
    """Format a method's name with its color, sorted in the order of the comparison."""
    place = comparison.number(method)
    return Cell(method, order=place, method=place)


def has_several_shots(comparison: Comparison) -> bool:
    """Return whether lines of the table differ in their shots."""
    return len({line.row.shots for line in comparison.lines} - {None}) > 1


def accuracies(comparison: Comparison) -> Table:
    """Return the table of `dassl results`: every dataset, and the average over them."""
    lines = comparison.lines
    columns = columns_of(lines)
    with_shots = has_several_shots(comparison)
    published, datasets = Published(comparison.protocol.name), {line.row.dataset for line in lines} - {AVERAGE}
    compared = [compare(published, line, datasets) for line in lines]
    header = ["dataset", "method", *(["shots"] if with_shots else []), *columns, "seeds"]
    header += ["published", "difference"] if any(compared) else []
    best = {column: best_lines(lines, column) for column in columns}
    rows = []
    for place, (line, figures) in enumerate(zip(lines, compared, strict=True)):
        row = [word(line.row.dataset), named(comparison, comparison.method(line.row))]
        row += [images_per_class(line.row.shots)] if with_shots else []
        row += [*(accuracy(line, column, best[column][place]) for column in columns), number(line.seeds, 0)]
        row += [Cell(text) for text in figures or ("", "")] if any(compared) else []
        rows.append(row)
    return Table("Accuracy", header, rows, [False, False, *[True] * (len(header) - 2)])


def accuracy(line: Line, column: str, best: bool) -> Cell:
    """Format a mean with its deviation, or with the number of runs if some are missing; the best is bold."""
    mean, deviation = line.mean(column), line.deviation(column)
    if mean is None:
        return Cell(line.no_figure(column))
    if not line.is_complete(column):
        return number(mean, detail=f"{len(line.columns[column])} of {line.seeds}")
    detail = f"± {deviation:.2f}" if deviation is not None else ""
    return number(mean, detail=detail, best=best)


def calibration(comparison: Comparison) -> Table | None:
    """Return the columns of `dassl results --calibration`, those that a run has recorded."""
    names = [name for name in CALIBRATION if any(line.medians.get(name) is not None for line in comparison.lines)]
    with_shots = has_several_shots(comparison)
    rows = []
    for line in comparison.lines:
        row = [word(line.row.dataset), named(comparison, comparison.method(line.row))]
        row += [images_per_class(line.row.shots)] if with_shots else []
        rows.append(row + [optional(line.medians.get(name)) for name in names])
    header = ["dataset", "method", *(["shots"] if with_shots else []), *names]
    return Table("Calibration", header, rows, [False, False, *[True] * (len(header) - 2)]) if names else None


def optional(value: float | None) -> Cell:
    return NONE if value is None else number(value)


def settings(comparison: Comparison) -> list[Table]:
    """List the settings that all runs share, and for each method those that others have not, or not the same."""
    values: dict[str, dict[str, dict[str, None]]] = {}  # key -> method -> its values, in order
    for run in comparison.runs:
        for key, value in flatten(run.result.get("config") or {}).items():
            foreign = key.startswith("TRAINER.") and key.split(".")[1] != run.job.row.trainer.upper()
            if key not in OF_A_RUN and (not foreign or key == "TRAINER.NAME"):
                values.setdefault(key, {}).setdefault(run.method, {})[str(value)] = None
    everyone = len({run.method for run in comparison.runs})
    shared, own = [], []
    for key, of in sorted(values.items()):
        texts = [", ".join(each) for each in of.values()]
        if len(of) == everyone and len(set(texts)) == 1:
            shared.append([word(key), word(texts[0])])
        else:
            own += [[word(key), named(comparison, m), word(text)] for m, text in zip(of, texts, strict=True)]
    tables = [
        Table("Settings that differ", ["setting", "method", "value"], own, [False] * 3, folded=True),
        Table("Settings of all runs", ["setting", "value"], shared, [False] * 2, folded=True),
    ]
    return [table for table in tables if table.rows]


def environment(comparison: Comparison) -> Table:
    """List versions, machine, and weights, and how many runs had each."""
    counts: dict[tuple[str, str], int] = {}
    for run in comparison.runs:
        result = run.result
        found = dict(result.get("versions") or {}) | {key: result.get(key) for key in ("device", "threads", "backbone")}
        found["weights"] = (result.get("weights_sha256") or "")[:12]
        for key, value in found.items():
            if value:
                counts[key, str(value)] = counts.get((key, str(value)), 0) + 1
    rows = [[word(key), word(value), number(count, 0)] for (key, value), count in sorted(counts.items())]
    return Table("Environment", ["what", "value", "runs"], rows, [False, False, True])


def differences(comparison: Comparison, found: list[Difference], measure: str) -> Table:
    """List all pairs of methods with the results of the tests; without intervals or p-values if no pair has one."""
    with_interval, with_p = any(pair.interval for pair in found), any(pair.p is not None for pair in found)
    rows = []
    for pair in found:
        row = [named(comparison, pair.a), named(comparison, pair.b), number(pair.difference), number(pair.n, 0)]
        if with_interval:
            row.append(Cell(f"{pair.interval[0]:+.2f} to {pair.interval[1]:+.2f}") if pair.interval else NONE)
        if with_p:
            row.append(NONE if pair.p is None else number(pair.p, 4, best=pair.p <= ALPHA))
        rows.append(row)
    header = ["method", "minus method", "mean difference", "datasets"]
    header += [f"{1 - ALPHA:.0%} interval"] * with_interval + ["p (Wilcoxon, Holm)"] * with_p
    numeric = [False, False, *[True] * (len(header) - 2)]
    return Table(f"All pairs of methods, {measure}", header, rows, numeric, folded=True)


def runs(comparison: Comparison) -> Table:
    """List every run with its costs."""
    header = ["dataset", "method", "shots", "seed", "tested on", "%", "images"]
    header += ["parameters", "GFLOP / step", "GFLOP / image", "train, s", "s / epoch", "MiB", "sample"]
    rows = []
    for run in comparison.runs:
        row, result, seconds = run.job.row, run.result, run.result.get("seconds") or {}
        gflop = result.get("gflop") or {}
        trained = not run.job.source and run.model is not None  # a test of another run's model trains nothing
        rows.append(
            [
                word(row.dataset),
                named(comparison, run.method),
                images_per_class(None if run.method in comparison.untrained else run.job.shots),
                NONE if run.method in comparison.untrained else number(run.job.seed, 0),
                word(run.job.stage.column),
                number(run.accuracy),
                number(result["metrics"].get("n"), 0),
                number(result.get("trained_parameters"), 0) if trained else NONE,
                number(gflop.get("training_step"), 2) if trained else NONE,
                number(gflop.get("test_image"), 2),
                number(seconds.get("train"), 1) if trained else NONE,
                number(seconds.get("per_epoch"), 2) if trained else NONE,
                number(result.get("peak_memory_mib"), 0),
                word(str(result.get("draw_hash") or "")[:8]),
            ]
        )
    numeric = [False, False, True, True, False, *[True] * 8, False]
    return Table("Runs", header, rows, numeric, folded=len(rows) > MANY)


def words(comparison: Comparison, explanations: dict[str, Explanation]) -> Table | None:
    """List learned text vectors with the nearest words of the vocabulary."""
    rows = []
    for method, explanation in explanations.items():
        for vector in explanation.words:
            near = [Cell(text, f"{distance:.3f}", distance) for text, distance in vector["words"]]
            rows.append([named(comparison, method), word(vector["vector"]), number(vector["norm"], 3), *near])
    if not rows:
        return None
    most = max(len(row) for row in rows) - 3
    header = ["method", "vector", "norm", "nearest word", *(f"{i}." for i in range(2, most + 1))]
    return Table("Nearest words and their distances", header, rows, [False, False, True, *[False] * most])


def confusions(comparison: Comparison, found: dict[str, list[tuple[str, str, int, float]]], stage: str) -> Table:
    """List `found` in a stage: method -> (true class, prediction, images, share of the class in percent)."""
    rows = [
        [named(comparison, method), word(truth), word(predicted), number(n, 0), number(share, 1)]
        for method, pairs in found.items()
        for truth, predicted, n, share in pairs
    ]
    header = ["method", "true class", "predicted", "images", "share of the class, %"]
    return Table(f"Most frequent confusions, {stage}", header, rows, [False, False, False, True, True])
