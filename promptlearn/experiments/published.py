"""Figures that papers published, to stand beside ours. `published.json` holds them with their sources.

It is a list of tables, one for each protocol, method, number of shots and variant: `figures` are {data set: {column:
accuracy in percent}}, data sets as files of configs/datasets/, columns as in our tables, H by `harmonic`'s convention.
"""

from pathlib import Path

from basics import read_json
from promptlearn.experiments.protocols import Protocol
from promptlearn.experiments.summary import AVERAGE, H_OF_MEANS, H_OF_SEEDS, Line

FILE = Path(__file__).with_name("published.json")
BACKBONE = "ViT-B/16"  # of all figures


class Published:
    """The figures of one protocol."""

    def __init__(self, protocol: Protocol, lines: list[Line]):
        tables = [entry for entry in read_json(FILE) if entry["protocol"] == protocol.name]
        self.tables = {(entry["trainer"], entry["shots"], entry["variant"]): entry for entry in tables}
        theirs = {dataset for entry in tables for dataset in entry["figures"]} - {AVERAGE}
        # An average can be compared only if it is over the same data sets.
        self.same_datasets = theirs == {line.row.dataset for line in lines}

    def figures(self, line: Line) -> dict[str, float]:
        """{column: accuracy} for a line whose runs used the papers' backbone; empty where nothing was published."""
        row = line.row
        if row.dataset == AVERAGE and not self.same_datasets:
            return {}
        entry = self.tables.get((row.trainer, row.shots, row.variant))
        return entry["figures"].get(row.dataset, {}) if entry and line.backbones == {BACKBONE} else {}

    def ours(self, line: Line, column: str) -> float | None:
        """Our figure for a published one: a column's mean, or H by the paper's convention."""
        if column == H_OF_MEANS:
            entry = self.tables[line.row.trainer, line.row.shots, line.row.variant]
            return line.h if entry["harmonic"] == "means" else line.cells[H_OF_SEEDS].mean
        return line.cells[column].mean if column in line.cells else None

    def beside(self, line: Line) -> tuple[str, str] | None:
        """The published figures of a line and ours less theirs, each "base / new / H"; None where there are none."""
        figures = {column: value for column, value in self.figures(line).items() if column in (*line.cells, H_OF_MEANS)}
        if not figures:
            return None
        differences = []
        for column, value in figures.items():
            ours = self.ours(line, column)
            differences.append("missing" if ours is None else f"{ours - value:+.2f}")
        return " / ".join(f"{value:.2f}" for value in figures.values()), " / ".join(differences)
