"""The table of results for people: text, Markdown, LaTeX."""

from collections.abc import Callable, Iterable

from tabulate import tabulate

from promptlearn.experiments.protocols import ZERO_SHOT, Protocol, Row
from promptlearn.experiments.published import Published
from promptlearn.experiments.results_table import (
    H_OF_MEANS,
    H_OF_SEEDS,
    TARGETS,
    Line,
    as_csv,
    averages,
    columns_of,
)

# tabulate's names of the formats; CSV does not need it
FORMATS = {"text": "simple", "markdown": "github", "latex": "latex_booktabs", "csv": ""}
NOTES = {
    "": "accuracy in percent: mean ± sample standard deviation over the seeds; averages over data sets need every run",
    H_OF_MEANS: f"{H_OF_MEANS}: harmonic mean of the mean base and the mean new accuracy (CoCoOp's tables)",
    H_OF_SEEDS: f"{H_OF_SEEDS}: mean over seeds and data sets of each run's harmonic mean (RPO's tables)",
    TARGETS: f"{TARGETS}: mean of all columns but the source",
    "published": "published: the papers' figures for ViT-B/16; difference: ours less theirs",
}


def table(protocol: Protocol, lines: list[Line], style: str = "text") -> str:
    """The table in one of FORMATS. All but CSV end with notes on what the figures are.

    Published figures stand next to the results that can be compared with them.
    """
    if style == "csv":
        return as_csv(protocol, lines).rstrip("\n")
    columns, name = columns_of(lines), method_namer(line.row for line in lines)
    everything = [*lines, *averages(lines)]
    published = Published(protocol, lines)
    compared = [published.compare(line) for line in everything]
    header = ["data set", "method", *columns, "seeds"]
    body = [[line.row.dataset, name(line.row), *(cell(line, c) for c in columns), line.seeds] for line in everything]
    if any(compared):
        header += ["published", "difference"]
        body = [row + list(figures or ("", "")) for row, figures in zip(body, compared, strict=True)]
    align = ["left", "left", *["right"] * (len(header) - 2)]
    notes = [note for key, note in NOTES.items() if not key or key in header]
    # Without disable_numparse tabulate would read 71.20 as a number and drop its last digit.
    text = tabulate(body, header, tablefmt=FORMATS[style], colalign=align, disable_numparse=True)
    return text + "\n\n" + "\n".join(f"% {note}" if style == "latex" else note for note in notes)


def cell(line: Line, column: str) -> str:
    """Mean, deviation, and the number of runs if some are missing, such as `91.00 ± 1.41 (2 of 3)`."""
    mean, deviation = line.mean(column), line.deviation(column)
    if mean is None:
        return "missing"
    text = f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"
    return text if line.is_complete(column) else f"{text} ({len(line.columns[column])} of {line.seeds})"


def method_namer(rows: Iterable[Row]) -> Callable[[Row], str]:
    """A function that names a row's method, adding its config and shots where they distinguish rows of one trainer."""
    variants: dict[str, set[Row]] = {}
    for row in rows:
        variants.setdefault(row.trainer, set()).add(row)
    configs = {trainer for trainer, own in variants.items() if len({row.config for row in own}) > 1}
    shots = {trainer for trainer, own in variants.items() if len({row.shots for row in own}) > 1}

    def name(row: Row) -> str:
        details = [
            row.config if row.trainer in configs else "",
            row.variant.replace(",", ", "),
            f"{row.shots} shots" if row.trainer in shots else "",
        ]
        details = ", ".join(filter(None, details))
        return ("zero-shot CLIP" if row.trainer == ZERO_SHOT else row.trainer) + (f" ({details})" if details else "")

    return name
