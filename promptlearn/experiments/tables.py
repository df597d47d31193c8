"""Tables of results, for people: text, Markdown, LaTeX."""

from tabulate import tabulate

from promptlearn.experiments.protocols import ZERO_SHOT, Protocol, Row
from promptlearn.experiments.published import Published
from promptlearn.experiments.summary import H_OF_MEANS, H_OF_SEEDS, TARGETS, Line, as_csv, averages, shown_columns

# for tabulate; CSV is written without it
FORMATS = {"text": "simple", "markdown": "github", "latex": "latex_booktabs", "csv": ""}
NOTES = {
    "": "accuracy in percent: mean ± sample standard deviation over the seeds; averages over data sets need every run",
    H_OF_MEANS: f"{H_OF_MEANS}: harmonic mean of the mean base and the mean new accuracy (CoCoOp's tables)",
    H_OF_SEEDS: f"{H_OF_SEEDS}: mean over seeds and data sets of each run's harmonic mean (RPO's tables)",
    TARGETS: f"{TARGETS}: mean of all columns but the source",
    "published": "published: the papers' figures for ViT-B/16; difference: ours less theirs",
}


def table(protocol: Protocol, lines: list[Line], style: str = "text") -> str:
    """The table in one of FORMATS. All but CSV end with a note on what the figures are.

    Figures that papers published stand beside those that can be compared with them.
    """
    if style == "csv":
        return as_csv(protocol, lines).rstrip("\n")
    everything = [*lines, *averages(lines)]
    columns, published, name = shown_columns(protocol, lines), Published(protocol, lines), namer(lines)
    beside = [published.beside(line) for line in everything]
    header = ["data set", "method", *columns, "seeds"]
    body = []
    for line in everything:
        figures = {column: str(cell) for column, cell in line.cells.items()}
        figures |= {H_OF_MEANS: f"{line.h:.2f}"} if line.h is not None else {}
        cells = [figures.get(column, "missing") for column in columns]
        body.append([line.row.dataset, name(line.row), *cells, max(cell.asked for cell in line.cells.values())])
    if any(beside):
        header += ["published", "difference"]
        body = [row + list(theirs or ("", "")) for row, theirs in zip(body, beside, strict=True)]
    align = ["left", "left", *["right"] * (len(header) - 2)]
    notes = [note for key, note in NOTES.items() if not key or key in header]
    # numbers stay as they are written: tabulate would read 71.20 as a number and drop its last digit
    text = tabulate(body, header, tablefmt=FORMATS[style], colalign=align, disable_numparse=True)
    return text + "\n\n" + "\n".join(f"% {note}" if style == "latex" else note for note in notes)


def namer(lines: list[Line]):
    """A function from a row to its method's name, which says of config and shots what tells the lines apart."""
    variants: dict[str, set[Row]] = {}
    for line in lines:
        variants.setdefault(line.row.trainer, set()).add(line.row)
    configs = {trainer for trainer, rows in variants.items() if len({row.config for row in rows}) > 1}
    shots = {trainer for trainer, rows in variants.items() if len({row.shots for row in rows}) > 1}

    def name(row: Row) -> str:
        said = [
            row.config if row.trainer in configs else "",
            row.variant.replace(",", ", "),
            f"{row.shots} shots" if row.trainer in shots else "",
        ]
        said = ", ".join(filter(None, said))
        return ("zero-shot CLIP" if row.trainer == ZERO_SHOT else row.trainer) + (f" ({said})" if said else "")

    return name
