"""The table of results: one line for each method and dataset, holding every seed's accuracy in each column.

docs/statistics.md states the formula of each figure.

This is plain Python, not pandas: `dassl results` prints the table, and importing pandas (0.6 s) takes longer than that
command may take as a whole.
"""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tabulate import tabulate

from basics import write_atomic, write_json
from basics.csv_files import csv_text
from promptlearn.experiments.discovery import NOT_APPLICABLE, discover, result_of
from promptlearn.experiments.protocols import UNTRAINED, ZERO_SHOT, Job, Protocol, Row
from promptlearn.experiments.published import (
    AVERAGE,
    H_OF_MEANS,
    H_OF_SEEDS,
    TARGETS,
    Published,
    compare,
    with_deviation,
)
from promptlearn.experiments.shots import Shots, describe_shots, shots_order

# tabulate's names of the formats; CSV does not need one
FORMATS = {"text": "simple", "markdown": "github", "latex": "latex_booktabs", "csv": ""}
NOTES = {
    "": "accuracy in percent: mean ± sample standard deviation over the seeds; averages over datasets need every run",
    H_OF_MEANS: f"{H_OF_MEANS}: harmonic mean of the mean base and the mean new accuracy (CoCoOp's tables); of the "
    "average, that of the averages",
    H_OF_SEEDS: f"{H_OF_SEEDS}: mean over seeds and datasets of each run's harmonic mean (RPO's tables)",
    TARGETS: f"{TARGETS}: mean of all columns except the source",
    "GFLOP/step": "parameters, GFLOP: medians over the training runs (with the most shots, if shots are columns), and "
    "over the datasets for the average; GFLOP/step: 10^9 operations of a training step (a batch, forward and "
    "backward); GFLOP/image: of a test image",
    "ECE": "ECE: expected calibration error in percent, T: the temperature fitted on validation images; AUROC, FPR95: "
    "known against unknown classes by maximum softmax, FPR95 at 95% true positives; medians over the first test column",
    "published": "published: the papers' figures for ViT-B/16; difference: ours minus theirs, with their convention of "
    "H; sd: in standard deviations over our seeds, or theirs if we have one seed",
}
COSTS: dict[str, Callable[[dict], float | None]] = {  # columns of `dassl results --costs`, from a training run
    "parameters": lambda result: result.get("trained_parameters"),
    "GFLOP/step": lambda result: (result.get("gflop") or {}).get("training_step"),
    "GFLOP/image": lambda result: (result.get("gflop") or {}).get("test_image"),
}
CALIBRATION: dict[str, Callable[[dict], float | None]] = {  # columns of --calibration, from a test in the first column
    "ECE": lambda result: result["metrics"].get("ece"),
    "T": lambda result: (result.get("calibration") or {}).get("temperature"),
    "ECE at T": lambda result: (result.get("calibration") or {}).get("test_ece_after"),
    "AUROC": lambda result: _unknowns(result, "max_softmax", "auroc"),
    "FPR95": lambda result: _unknowns(result, "max_softmax", "fpr95"),
    "AUROC (energy)": lambda result: _unknowns(result, "energy", "auroc"),
    "FPR95 (energy)": lambda result: _unknowns(result, "energy", "fpr95"),
}
ACCURACY = "accuracy"  # the metric of the tables, unless another is requested
HARMONIC = {"means": H_OF_MEANS, "seeds": H_OF_SEEDS}  # conventions of H; the first is the default
MISSING = "missing"  # stands in place of a figure without runs
ONE_CLASS = "one class"  # stands in place of the accuracy of a test with a single class
DIGITS = 2  # of accuracies in tables; figures that are equal to these are equally good
ANY = "any"  # in place of shots: the lines of all of them
LOWER_IS_BETTER = ("error_rate", "ece")  # of the metrics
# Around what is bold, for private use: tabulate escapes what LaTeX reserves, so the command is put in afterwards.
BOLD, BOLD_END = "\ue000", "\ue001"
FIGURES = ("mean", "deviation", "n", "missing")  # of each column in summary.json and summary.csv


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        row: what was trained. An average over datasets has AVERAGE as its dataset. A method that trains nothing has no
            shots, and one seed.
        method: its name, which distinguishes it from the other lines of its dataset.
        columns: {column: {seed: accuracy in percent}} of the finished runs.
        seeds: the number of seeds that every column should have.
        backbones: the backbones of the runs.
        not_applicable: the columns for whose classes the method has no answer.
        one_class: the columns of tests with a single class, which every answer gets right. They hold no figures.
        medians: {name in COSTS: median over the training runs; name in CALIBRATION: median over the runs of the first
            column}, or None where none recorded it.
    """

    row: Row
    method: str
    columns: dict[str, dict[int, float]]
    seeds: int
    backbones: frozenset[str] = frozenset()
    not_applicable: frozenset[str] = frozenset()
    one_class: frozenset[str] = frozenset()
    medians: Mapping[str, float | None] = field(default_factory=dict)

    def is_complete(self, column: str) -> bool:
        """Return whether no run is missing: none of the column's, or for H none of the line's."""
        needed = self.columns if column == H_OF_MEANS else [column]
        return all(len(self.columns[name]) == self.seeds for name in needed)

    def mean(self, column: str) -> float | None:
        """Return the mean of a column's finished runs, None if there are none.

        H is the harmonic mean of mean base and mean new accuracy (CoCoOp's convention), None if any run is missing.
        For an average over datasets, it is that of the averages.
        """
        if column == H_OF_MEANS:
            complete = self.is_complete(H_OF_MEANS)
            return statistics.harmonic_mean([self.mean("base"), self.mean("new")]) if complete else None
        return statistics.mean(self.columns[column].values()) if self.columns[column] else None

    def deviation(self, column: str) -> float | None:
        """Return the sample standard deviation (n - 1) over the seeds, None for fewer than two runs and for H."""
        values = self.columns.get(column, {}).values()
        return statistics.stdev(values) if len(values) > 1 else None

    def no_figure(self, column: str) -> str:
        """Return what stands in place of a mean: "n/a" if the method has no answer, "one class", or "missing"."""
        derived = column not in self.columns or column in (H_OF_SEEDS, TARGETS)
        for columns, text in ((self.not_applicable, NOT_APPLICABLE), (self.one_class, ONE_CLASS)):
            if column in columns or (derived and columns):
                return text
        return MISSING

    def text(self, column: str) -> str:
        """Format mean, deviation, and the number of runs if some are missing: `91.00 ± 1.41 (2 of 3)`."""
        mean, deviation = self.mean(column), self.deviation(column)
        if mean is None:
            return self.no_figure(column)
        text = with_deviation(mean, deviation)
        return text if self.is_complete(column) else f"{text} ({len(self.columns[column])} of {self.seeds})"


def summarize(protocol: Protocol, jobs: list[Job], metric: str = ACCURACY) -> list[Line]:
    """Return one line for each row, with the derived columns, by name, zero-shot CLIP first on each dataset.

    Args:
        metric: the figure in the columns: a key of the results' `metrics`. Runs that lack it count as missing.
    """
    shots = trained_shots(jobs)
    ambiguous = with_several_configs(job.row for job in jobs)
    configs: dict[tuple[str, str], set[str]] = {}  # trainer, dataset -> its configs
    for job in jobs:
        configs.setdefault((job.row.trainer, job.row.dataset), set()).add(job.row.config)
    results: dict[Row, dict[str, dict[int, dict | None]]] = {}  # row -> column -> seed -> result
    for job in sorted(jobs, key=_position):
        row, columns, seed, untrained = job.row, [job.stage.column], job.seed, job.row.trainer in UNTRAINED
        if untrained:  # the same with any number of shots and any seed
            row, seed = replace(row, shots=None), 1
        if protocol.by_shots:
            own = shots if untrained else [job.shots]
            if row.trainer not in ambiguous:  # its config may depend on the shots
                row = replace(row, config=_join_configs(configs[row.trainer, row.dataset]))
            row, columns = replace(row, shots=None), [describe_shots(n) for n in own]
            results.setdefault(row, {describe_shots(n): {} for n in shots})  # shots that only other methods have
        for column in columns:
            of_column = results.setdefault(row, {}).setdefault(column, {})
            of_column[seed] = of_column.get(seed) or result_of(job)
    name = method_namer(results)
    return [_line(protocol, row, name(row), of_row, metric) for row, of_row in results.items()]


def trained_shots(jobs: Iterable[Job]) -> list[Shots]:
    """Return the shots of the jobs, in order; those of methods that train nothing count only if there are no others."""
    jobs = list(jobs)
    trained = [job for job in jobs if job.row.trainer not in UNTRAINED]
    return sorted({job.shots for job in trained or jobs}, key=shots_order)


def at_equal_shots(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Group lines by shots, which no longer are part of the methods' names; untrained methods are in every group.

    Returns:
        {shots in words: lines}. The words are empty if no line has shots: its columns have them.
    """
    lines = list(lines)
    name = method_namer((line.row for line in lines), with_shots=False)
    lines = [replace(line, method=name(line.row)) for line in lines]
    shots = sorted({line.row.shots for line in lines if line.row.shots is not None}, key=shots_order)
    groups = {describe_shots(n): [line for line in lines if line.row.shots in (None, n)] for n in shots}
    return groups or {"": lines}


def best_lines(lines: list[Line], column: str, lowest: bool = False) -> list[bool]:
    """Return for each line whether it is the best in a column.

    It is if no other complete line of the same dataset and shots has a higher mean, and there is another one. A method
    that trains nothing is compared with the lines of all shots.

    Args:
        lowest: whether lower is better.
    """
    means = [_rounded_mean(line, column) for line in lines]
    rivals: dict[tuple, list[float]] = {}  # dataset, shots (ANY: all lines of the dataset) -> means
    shots_on: dict[str, set] = {}
    for line in lines:
        shots_on.setdefault(line.row.dataset, {ANY}).add(line.row.shots)
    for line, mean in zip(lines, means, strict=True):
        dataset, shots = line.row.dataset, line.row.shots
        for group in shots_on[dataset] if shots is None else (shots, ANY):
            if mean is not None:
                rivals.setdefault((dataset, group), []).append(mean)
    best = {group: min(of) if lowest else max(of) for group, of in rivals.items() if len(of) > 1}
    groups = [(line.row.dataset, ANY if line.row.shots is None else line.row.shots) for line in lines]
    return [mean is not None and best.get(group) == mean for mean, group in zip(means, groups, strict=True)]


def _rounded_mean(line: Line, column: str) -> float | None:
    mean = line.mean(column) if line.is_complete(column) else None
    return None if mean is None else round(mean, DIGITS)


def metrics_of(jobs: Iterable[Job]) -> list[str]:
    """Return the names of the metrics that the jobs' results hold, accuracy first."""
    found = ((result_of(job) or {}).get("metrics") or {} for job in jobs)
    return list(dict.fromkeys(key for metrics in found for key, value in metrics.items() if isinstance(value, float)))


def _position(job: Job) -> tuple:
    """Return where a job belongs in the table, whether it was requested or discovered."""
    row, shots = job.row, shots_order(job.shots)
    return row.dataset, row.trainer != ZERO_SHOT, row.trainer, row.config, row.variant, shots, job.stage.dataset


def with_several_configs(rows: Iterable[Row]) -> set[str]:
    """Return the trainers that were run with several configs on the same dataset, shots and variant.

    Otherwise the config follows from the dataset and the shots (configs/protocols/), and the trainer is one method.
    """
    rows = set(rows)
    counts = Counter(replace(row, config="") for row in rows)
    return {row.trainer for row in rows if counts[replace(row, config="")] > 1}


def _join_configs(configs: set[str]) -> str:
    return " + ".join(sorted(configs))


def method_namer(rows: Iterable[Row], with_shots: bool = True) -> Callable[[Row], str]:
    """Return a function that names a row's method, with config and shots where they distinguish rows of one trainer.

    Args:
        with_shots: whether shots are ever part of the name.
    """
    rows = set(rows)
    ambiguous = with_several_configs(rows)
    shots: dict[str, set] = {}
    for row in rows:
        shots.setdefault(row.trainer, set()).add(row.shots)

    def name(row: Row) -> str:
        details = [
            row.config if row.trainer in ambiguous else "",
            row.variant.replace(",", ", "),
            describe_shots(row.shots) if with_shots and row.shots and len(shots[row.trainer]) > 1 else "",
        ]
        details = ", ".join(filter(None, details))
        return ("zero-shot CLIP" if row.trainer == ZERO_SHOT else row.trainer) + (f" ({details})" if details else "")

    return name


def _line(protocol: Protocol, row: Row, method: str, results: dict[str, dict[int, dict | None]], metric: str) -> Line:
    done = {column: {seed: r for seed, r in of.items() if r and r["metrics"]} for column, of in results.items()}
    without = frozenset(column for column, of in results.items() if any(r and not r["metrics"] for r in of.values()))
    one_class = frozenset(column for column, of in done.items() if any(map(has_one_class, of.values())))
    columns = {
        column: {seed: r["metrics"][metric] for seed, r in of.items() if isinstance(r["metrics"].get(metric), float)}
        for column, of in done.items()
    }
    columns |= dict.fromkeys(one_class, {})
    if protocol.harmonic:
        columns[H_OF_SEEDS] = _by_seed(statistics.harmonic_mean, [columns["base"], columns["new"]])
    if protocol.transfer:
        skipped = {protocol.stages[0].column, *one_class}
        targets = [values for column, values in columns.items() if column not in skipped]
        columns[TARGETS] = _by_seed(statistics.mean, targets) if targets else {}
    backbones = frozenset(r.get("backbone", "") for of in done.values() for r in of.values())
    # The stage that trains; of several shots, the most.
    costly = list(done)[-1] if protocol.by_shots else protocol.stages[0].column
    medians = medians_of(COSTS, done[costly].values()) | medians_of(CALIBRATION, next(iter(done.values())).values())
    return Line(row, method, columns, max(map(len, results.values())), backbones, without, one_class, medians)


def has_one_class(result: dict) -> bool:
    """Return whether a finished run was tested on images of a single class, by its per-class results."""
    return len(result["metrics"].get("per_class", {})) == 1


def _unknowns(result: dict, rule: str, figure: str) -> float | None:
    return result["unknowns"][rule][figure] if result.get("unknowns") else None


def medians_of(figures: Mapping[str, Callable], results: Iterable[dict]) -> dict[str, float | None]:
    """Return the median of each figure over the runs that recorded it."""
    results = list(results)
    return {name: median([figure(result) for result in results]) for name, figure in figures.items()}


def median(values: list[float | None]) -> float | None:
    """Return the median of the known values; None without any."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _by_seed(form: Callable, columns: list[dict[int, float]]) -> dict[int, float]:
    """Apply `form` to the accuracies of each seed that all columns have."""
    seeds = sorted(set.intersection(*map(set, columns)))
    return {seed: form([values[seed] for values in columns]) for seed in seeds}


def averages(protocol: Protocol, lines: list[Line]) -> list[Line]:
    """Average each method's results over the datasets, seed by seed. Empty for a single dataset.

    Datasets with a test of a single class do not count. The columns are empty for a method that has no run on some
    dataset or other seeds on some: its average would be over something else. Of single runs, there is no such line.
    """
    left_out = {line.row.dataset for line in lines if line.one_class}
    lines = [line for line in lines if line.row.dataset not in left_out]
    datasets = {line.row.dataset for line in lines}
    ambiguous = with_several_configs(line.row for line in lines)
    methods: dict[Row, list[Line]] = {}
    for line in lines:
        config = line.row.config if line.row.trainer in ambiguous else ""
        methods.setdefault(replace(line.row, dataset=AVERAGE, config=config), []).append(line)
    found = []
    for row, own in methods.items():
        whole = len(own) == len(datasets) and all(line.is_complete(column) for line in own for column in line.columns)
        row = replace(row, config=row.config or _join_configs({line.row.config for line in own}))
        columns = {}
        for column in own[0].columns:
            values = [line.columns[column] for line in own]
            same_seeds = all(of.keys() == values[0].keys() for of in values)
            columns[column] = _by_seed(statistics.mean, values) if whole and same_seeds else {}
        backbones = frozenset().union(*(line.backbones for line in own))
        without = frozenset().union(*(line.not_applicable for line in own))
        medians = {name: median([line.medians.get(name) for line in own]) for name in COSTS | CALIBRATION}
        changes = {"backbones": backbones, "not_applicable": without, "medians": medians}
        found.append(replace(own[0], row=row, columns=columns, **changes))
    found = [line for line in found if any(line.columns.values()) or not protocol.single]
    return found if len(datasets) > 1 else []


def columns_of(lines: Iterable[Line], harmonic: str = "means") -> list[str]:
    """Return all columns for a reader, with H in one convention of HARMONIC."""
    columns = dict.fromkeys(column for line in lines for column in line.columns)
    return [HARMONIC[harmonic] if column == H_OF_SEEDS else column for column in columns]


def notes_on(lines: Iterable[Line], header: Iterable[str], metric: str = ACCURACY) -> list[str]:
    """Explain the figures under a header, each in one line."""
    header = set(header)
    notes = [note for key, note in NOTES.items() if not key or key in header]
    notes[0] = notes[0].replace(ACCURACY, metric.replace("_", " "), 1)
    single = dict.fromkeys(f"{line.row.dataset} ({column})" for line in lines for column in sorted(line.one_class))
    if single:
        notes.append(
            f"{ONE_CLASS}: tested on images of a single class, which tells no classes apart: {', '.join(single)}; left "
            "out of H, means of targets, averages over datasets, and statistics"
        )
    return notes


def table(
    protocol: Protocol,
    lines: list[Line],
    style: str = "text",
    costs: bool = False,
    calibration: bool = False,
    metric: str = ACCURACY,
    harmonic: str = "means",
) -> str:
    """Format the lines and their averages in one of FORMATS. All but CSV end with notes on the figures.

    Published figures stand next to the results that can be compared with them. In Markdown and LaTeX, the best is bold.

    Args:
        costs, calibration: with a column for each of COSTS, or of CALIBRATION, that some run has recorded.
        metric: as in `summarize`; published are accuracies only.
        harmonic: the convention of H, a key of HARMONIC.
    """
    if style == "csv":
        return as_csv(protocol, lines).rstrip("\n")
    everything, columns = [*lines, *averages(protocol, lines)], columns_of(lines, harmonic)
    published = Published(protocol.name)
    datasets = {line.row.dataset for line in lines}
    compared = [compare(published, line, datasets) if metric == ACCURACY else None for line in everything]
    header = ["dataset", "method", *columns, "seeds"]
    body, lowest = [], metric in LOWER_IS_BETTER
    best = {column: best_lines(everything, column, lowest) for column in columns}
    for number, line in enumerate(everything):
        cells = [bold(line.text(column), best[column][number], style) for column in columns]
        body.append([line.row.dataset, line.method, *cells, line.seeds])
    if any(compared):
        header += ["published", "difference"]
        body = [row + list(figures or ("", "")) for row, figures in zip(body, compared, strict=True)]
    for wanted, names, form in ((costs, COSTS, ",.6g"), (calibration, CALIBRATION, ".2f")):
        if wanted:
            names = [name for name in names if any(line.medians.get(name) is not None for line in lines)]
            header += names
            for row, line in zip(body, everything, strict=True):
                medians = (line.medians.get(name) for name in names)
                row += ["" if value is None else format(value, form) for value in medians]
    notes = notes_on(lines, header, metric)
    if style != "text":
        notes.append("bold: the best on its dataset among equal shots")
    return formatted(header, body, style, left=2) + "\n\n" + comment("\n".join(notes), style)


def bold(figure: str, is_best: bool, style: str) -> str:
    """Mark the mean in the text of a figure as bold, in the styles that can show it."""
    mean, *rest = figure.split(" ", 1)
    return " ".join([f"{BOLD}{mean}{BOLD_END}", *rest]) if is_best and style != "text" else figure


def formatted(header: list[str], body: list[list], style: str, left: int = 1) -> str:
    """Format a table of words and figures in a style of FORMATS other than CSV; the first `left` columns are words."""
    align = ["left"] * left + ["right"] * (len(header) - left)
    # Without disable_numparse, tabulate would read 71.20 as a number and drop its last digit.
    text = tabulate(body, header, tablefmt=FORMATS[style], colalign=align, disable_numparse=True)
    if style == "latex":
        if left > 1:  # a rule between datasets
            lines = text.splitlines()
            first = len(lines) - 2 - len(body)  # of the body's lines; two close the table
            starts = [i for i in range(1, len(body)) if body[i][0] != body[i - 1][0]]
            for i in reversed(starts):
                lines.insert(first + i, r"\midrule")
            text = "\n".join(lines)
        text = re.sub(r"(?<![\w.])([-+])(?=[\d.])", r"$\1$", text.replace("±", r"$\pm$"))
        return text.replace(BOLD, r"\textbf{").replace(BOLD_END, "}")
    return text.replace(BOLD, "**").replace(BOLD_END, "**")


def comment(text: str, style: str) -> str:
    """Format text between tables: as a comment where a program reads the tables."""
    mark = {"latex": "% ", "csv": "# "}.get(style, "")
    return "\n".join(mark + line for line in text.splitlines())


def records(protocol: Protocol, lines: list[Line]) -> list[dict]:
    """Convert the lines to plain dicts: the row's fields, FIGURES and seeds of each column, and H."""
    found = []
    for line in lines:
        record = dict(vars(line.row))
        for column, values in line.columns.items():
            figures = line.mean(column), line.deviation(column), len(values), line.seeds - len(values)
            seeds = {str(seed): value for seed, value in sorted(values.items())}
            record[column] = dict(zip(FIGURES, figures, strict=True)) | {"seeds": seeds}
        found.append(record | ({H_OF_MEANS: line.mean(H_OF_MEANS)} if protocol.harmonic else {}))
    return found


def as_csv(protocol: Protocol, lines: list[Line]) -> str:
    """Format the lines and their averages as CSV: the records without the single seeds. Missing figures are empty."""
    rows = []
    for record in records(protocol, [*lines, *averages(protocol, lines)]):
        row = {}
        for key, value in record.items():
            row |= {f"{key}_{name}": value[name] for name in FIGURES} if isinstance(value, dict) else {key: value}
        rows.append(row)
    return csv_text(rows)


def write_summary(protocol: Protocol, output: Path) -> None:
    """Write all of the protocol's results in `output` to summary.json and summary.csv in the protocol's folder."""
    lines = summarize(protocol, discover(protocol, output))
    summary = {
        "format": 1,
        "protocol": protocol.name,
        "rows": records(protocol, lines),
        "averages": records(protocol, averages(protocol, lines)),
    }
    write_json(summary, output / protocol.name / "summary.json")
    write_atomic(output / protocol.name / "summary.csv", as_csv(protocol, lines).encode())
