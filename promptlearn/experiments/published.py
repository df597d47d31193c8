"""Figures published in papers, to show next to ours. `published.json` holds them with their sources.

The file is a list of tables, one for each protocol, method, number of shots and variant. `figures` are {dataset:
{column: accuracy in percent}}: datasets are files of configs/datasets/, columns are named as in our tables, and H
follows the convention that `harmonic` names.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from basics import read_json
from promptlearn.experiments.protocols import Protocol

if TYPE_CHECKING:
    from promptlearn.experiments.results_table import Line

FILE = Path(__file__).with_name("published.json")
BACKBONE = "ViT-B/16"  # of all figures
# What the table forms from its other columns and over all datasets; published tables have the same.
H_OF_MEANS, H_OF_SEEDS, TARGETS, AVERAGE = "H", "H of seeds", "mean of targets", "average"


class Published:
    """The published figures of one protocol."""

    def __init__(self, protocol: Protocol, lines: "list[Line]"):
        tables = [entry for entry in read_json(FILE) if entry["protocol"] == protocol.name]
        self.tables = {(entry["trainer"], entry["shots"], entry["variant"]): entry for entry in tables}
        datasets = {dataset for entry in tables for dataset in entry["figures"]} - {AVERAGE}
        # An average can be compared only if it is over the same datasets.
        self.same_datasets = datasets == {line.row.dataset for line in lines}

    def compare(self, line: "Line") -> tuple[str, str] | None:
        """Return the published figures of a line and ours minus theirs, each "base / new / H".

        None where nothing was published, or the runs used another backbone than the papers.
        """
        row = line.row
        entry = self.tables.get((row.trainer, row.shots, row.variant))
        if not entry or line.backbones != {BACKBONE} or (row.dataset == AVERAGE and not self.same_datasets):
            return None
        figures = entry["figures"].get(row.dataset, {})
        figures = {column: value for column, value in figures.items() if column in (*line.columns, H_OF_MEANS)}
        differences = []
        for column, value in figures.items():
            ours = line.mean(H_OF_SEEDS if column == H_OF_MEANS and entry["harmonic"] == "seeds" else column)
            deviation = line.deviation(H_OF_SEEDS if column == H_OF_MEANS else column)
            in_deviations = f" ({(ours - value) / deviation:+.1f} sd)" if ours is not None and deviation else ""
            differences.append("missing" if ours is None else f"{ours - value:+.2f}{in_deviations}")
        theirs = " / ".join(f"{value:.2f}" for value in figures.values())
        return (theirs, " / ".join(differences)) if figures else None
