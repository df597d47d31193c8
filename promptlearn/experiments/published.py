"""Figures published in papers, to show next to ours. `published.json` holds them with their sources.

The file is a list of tables, one for each protocol, method, number of shots, and variant, and where it matters one for
each config. `figures` are {dataset: {column: accuracy in percent}}: datasets are files of configs/datasets/, columns
are named as in our tables, and H follows the convention that `harmonic` names. `deviations` are the standard deviations
over the authors' seeds, likewise. A protocol that is not one of ours holds the figures of a table in configs/reproduce/
that were measured with another backbone or other images.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from basics import read_json
from promptlearn.experiments.protocols import UNTRAINED, Row

if TYPE_CHECKING:
    from promptlearn.experiments.results_table import Line

FILE = Path(__file__).with_name("published.json")
BACKBONE = "ViT-B/16"  # of all figures
# What the table forms from its other columns and over all datasets; published tables have the same.
H_OF_MEANS, H_OF_SEEDS, TARGETS, AVERAGE = "H", "H of seeds", "mean of targets", "average"


class Published:
    """The published figures of one protocol, or of `name` in published.json."""

    def __init__(self, name: str):
        self.entries = [entry for entry in read_json(FILE) if entry["protocol"] == name]
        self.datasets = {dataset for entry in self.entries for dataset in entry["figures"]} - {AVERAGE}

    def find(self, row: Row) -> dict | None:
        """Find the entry of a row of the table."""
        for entry in self.entries:
            same = entry["trainer"] == row.trainer and entry["variant"] == row.variant
            same = same and (entry["shots"] == row.shots or row.trainer in UNTRAINED)
            if same and entry.get("config", row.config) == row.config:
                return entry
        return None


def compare(published: Published, line: "Line", datasets: set[str]) -> tuple[str, str] | None:
    """Return the published figures of a line and ours minus theirs, each "base / new / H".

    The difference is also given in standard deviations over our seeds, or over theirs if we have one seed.

    Args:
        datasets: of the table. A published average can be compared only if it is over the same ones.

    Returns:
        None where nothing was published, or the runs used another backbone than the papers.
    """
    entry = published.find(line.row)
    if not entry or line.backbones != {BACKBONE}:
        return None
    if line.row.dataset == AVERAGE and datasets != published.datasets:
        return None
    figures = entry["figures"].get(line.row.dataset, {})
    figures = {column: value for column, value in figures.items() if column in (*line.columns, H_OF_MEANS)}
    theirs, differences = [], []
    for column, value in figures.items():
        ours = line.mean(measured_column(column, entry))
        published_deviation = deviation_of(entry, line.row.dataset, column)
        deviation = line.deviation(H_OF_SEEDS if column == H_OF_MEANS else column) or published_deviation
        in_deviations = f" ({(ours - value) / deviation:+.1f} sd)" if ours is not None and deviation else ""
        differences.append("missing" if ours is None else f"{ours - value:+.2f}{in_deviations}")
        theirs.append(with_deviation(value, published_deviation))
    return (" / ".join(theirs), " / ".join(differences)) if figures else None


def measured_column(column: str, entry: dict | None) -> str:
    """Return our column that follows the same convention as the published one."""
    return H_OF_SEEDS if column == H_OF_MEANS and entry and entry["harmonic"] == "seeds" else column


def deviation_of(entry: dict, dataset: str, column: str) -> float | None:
    """Return the published standard deviation; None if there is none."""
    return entry.get("deviations", {}).get(dataset, {}).get(column)


def with_deviation(value: float, deviation: float | None) -> str:
    """Format an accuracy as in our tables, such as `91.00 ± 1.41`."""
    return f"{value:.2f}" if deviation is None else f"{value:.2f} ± {deviation:.2f}"
