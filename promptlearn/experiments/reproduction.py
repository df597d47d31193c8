"""Tables of papers: reads their declarations in configs/reproduce/, plans their runs, and prints them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from tabulate import tabulate

from basics import UserError
from dassl.config import read_yaml
from promptlearn.experiments.checkout import Checkout, refuse_unknown
from promptlearn.experiments.planning import configs_of, label_of, rows_of, several_shots
from promptlearn.experiments.protocols import PROTOCOLS, UNTRAINED, Job, Protocol, Row, jobs_of
from promptlearn.experiments.published import (
    AVERAGE,
    BACKBONE,
    H_OF_MEANS,
    TARGETS,
    Published,
    deviation_of,
    measured_column,
    with_deviation,
)
from promptlearn.experiments.requested_datasets import by_name, check_datasets, choose_dataset
from promptlearn.experiments.results_table import Line, averages, summarize
from promptlearn.experiments.shots import Shots, describe_shots

FOLDER = "reproduce"  # in configs/
DEMO_SEEDS = 2  # the fewest that have a deviation
OTHER_IMAGES = "accuracy"  # the column of published figures of other training images than our columns name
NOTE = "accuracy in percent: mean ± sample standard deviation over the seeds; published: empty if unavailable"


class RowSpec(Struct, forbid_unknown_fields=True):
    """A row.

    Attributes:
        name: as the paper calls it. Without a trainer: the name in published.json of a method that is not here.
        trainer: a folder of configs/trainers/.
        config: as under `configs` in configs/protocols/; None: the protocol's.
        vary: settings that differ from the config, key -> values; every combination is a row.
        demo: the same for the tiny CLIP of the demo and its config; None: as in `vary`.
    """

    name: str
    trainer: str = ""
    config: str | dict[str | int, str] | None = None
    vary: dict[str, list] = {}
    demo: dict[str, list] | None = None


class Scale(Struct, forbid_unknown_fields=True, frozen=True):
    """What a table runs on; None: the protocol's values."""

    datasets: list[str] | None = None
    shots: list[Shots] | None = None
    seeds: list[int] | None = None


class TableSpec(Struct, forbid_unknown_fields=True):
    """A table or figure.

    Attributes:
        protocol: of PROTOCOLS.
        layout: blocks: one for each dataset, the average first; average: only that; columns: one for each dataset.
        figures: the protocol in published.json; empty: this table's.
        groups: further datasets in published.json, such as averages over datasets that are not here.
        note: how the runs differ from the paper's.
    """

    title: str
    protocol: str
    rows: list[RowSpec]
    layout: Literal["blocks", "average", "columns"] = "blocks"
    runs: Scale = Scale()
    demo: Scale = Scale()
    figures: str = ""
    groups: list[str] = []
    note: str = ""


class Paper(Struct, forbid_unknown_fields=True):
    """A file of configs/reproduce/. elsewhere: tables that no run here can fill, and what to do instead."""

    title: str
    source: str
    tables: dict[str, TableSpec]
    elsewhere: dict[str, str] = {}


@dataclass(frozen=True)
class PlannedRow:
    """A row of the printed table and its jobs; without jobs, it has published figures only."""

    name: str
    jobs: tuple[Job, ...] = ()


def papers(checkout: Checkout) -> list[str]:
    return checkout.names(f"{FOLDER}/*.yaml")


def read_paper(checkout: Checkout, name: str) -> Paper:
    """Read configs/reproduce/NAME.yaml.

    Raises:
        UserError: there is no such paper, or its file has a mistake.
    """
    refuse_unknown("paper", [name], papers(checkout))
    path = checkout.config(f"{FOLDER}/{name}.yaml")
    try:
        paper = msgspec.convert(read_yaml(path), Paper)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {error}") from None
    for key, table in paper.tables.items():
        refuse_unknown(f"protocol of table {key} in {path}:", [table.protocol], list(PROTOCOLS))
    return paper


def choose_table(paper: Paper, name: str, table: str) -> TableSpec:
    """Choose a table of a paper. Raises UserError if there is none, or no run can fill it."""
    if table in paper.elsewhere:
        raise UserError(f"table {table} of {name}: {paper.elsewhere[table]}")
    refuse_unknown(f"table of {name}", [table], list(paper.tables))
    return paper.tables[table]


def plan_table(table: TableSpec, checkout: Checkout, output: Path, data: Path | None) -> list[PlannedRow]:
    """Plan the rows with their jobs. Without `data`, on the datasets of the built-in demo.

    Raises UserError for every name that does not exist, before any job is started.
    """
    protocol, settings = PROTOCOLS[table.protocol], checkout.settings(table.protocol, demo=not data)
    runs, seeds = (table.runs if data else table.demo), table.runs.seeds or settings["seeds"]
    datasets = runs.datasets or settings["datasets"]
    shots = several_shots(runs.shots or settings["shots"], f"shots of {table.title}")
    seeds = seeds if data else seeds[:DEMO_SEEDS]
    used = [settings["source"], *datasets] if protocol.transfer else datasets
    chosen = by_name(choose_dataset(name, checkout) for name in used)
    check_datasets(chosen.values(), protocol.tests_halves, checkout, output, data, settings["builtin"])
    stages = protocol.on(datasets) if protocol.transfer else protocol.stages

    planned = []
    for row in table.rows:
        jobs: dict[str, list[Job]] = {row.name: []}
        if row.trainer:
            refuse_unknown("trainer", [row.trainer], checkout.trainers())
            default = settings["configs"].get(row.trainer)
            configs = configs_of(checkout, row.trainer, None, (row.config if data else None) or default)
            grid = row.vary if data or row.demo is None else row.demo
            prompts = settings["prompts"].get(row.trainer)
            shots_are_rows = len(shots) > 1 and not protocol.by_shots and row.trainer not in UNTRAINED
            jobs = {}
            for dataset in list(chosen.values())[:1] if protocol.transfer else chosen.values():
                for run, overrides in rows_of(row.trainer, dataset, configs, [grid], shots):
                    varied = label_of([each for each in overrides if len(grid[each[0]]) > 1])
                    name = f"{row.name} ({varied})" if varied else row.name
                    own = jobs.setdefault(f"{name}, {describe_shots(run.shots)}" if shots_are_rows else name, [])
                    for seed in [1] if row.trainer in UNTRAINED else seeds:
                        own += jobs_of(stages, run, seed, output, chosen, overrides, prompts)
        planned += [PlannedRow(name, tuple(own)) for name, own in jobs.items()]
    return planned


def show_table(table: TableSpec, planned: list[PlannedRow]) -> str:
    """Format the table in the paper's layout: per row one line for the measured and one for the published figures."""
    protocol, jobs = PROTOCOLS[table.protocol], [job for row in planned for job in row.jobs]
    lines = []  # of each row, by dataset
    for row in planned:
        found = summarize(protocol, list(row.jobs))
        lines.append({line.row.dataset: line for line in (*found, *averages(protocol, found))})
    datasets, columns = list(dict.fromkeys(job.row.dataset for job in jobs)), columns_of(protocol, jobs, lines)
    cells = Cells(Published(table.figures or table.protocol), set(datasets), lines)
    several = [AVERAGE] if len(datasets) > 1 else []
    body = []
    if table.layout == "columns":
        places = [*datasets, *several, *table.groups]
        header = ["method", "figures", *places]
        for row, own in zip(planned, lines, strict=True):
            body += cells.of_row(row, own, [(place, columns[0]) for place in places])
    else:
        header = ["dataset", "method", "figures", *columns]
        for place in (several or datasets) if table.layout == "average" else [*several, *datasets]:
            for row, own in zip(planned, lines, strict=True):
                body += [[place, *line] for line in cells.of_row(row, own, [(place, column) for column in columns])]
    align = ["left" if name in ("dataset", "method", "figures") else "right" for name in header]
    text = tabulate(body, header, tablefmt="simple", colalign=align, disable_numparse=True)
    return "\n".join([text, "", NOTE, *([table.note] if table.note else [])])


def columns_of(protocol: Protocol, jobs: list[Job], lines: list[dict[str, Line]]) -> list[str]:
    """Return the columns for the accuracies, in the paper's order."""
    if protocol.by_shots:  # a method that trains nothing has one column
        return list(max((line.columns for own in lines for line in own.values()), key=len))
    columns = list(dict.fromkeys(job.stage.column for job in jobs))
    return columns + [H_OF_MEANS] * protocol.harmonic + [TARGETS] * protocol.transfer


class Cells:
    """The figures of a table as text.

    Args:
        datasets: of the table. A published average can be compared only if it is over the same ones.
        lines: the measured lines of each row.
    """

    def __init__(self, published: Published, datasets: set[str], lines: list[dict[str, Line]]):
        self.published, self.comparable = published, datasets == published.datasets
        self.shots = next((line.row.shots for own in lines for line in own.values() if line.row.shots), None)

    def of_row(self, row: PlannedRow, own: dict[str, Line], wanted: list[tuple[str, str]]) -> list[list[str]]:
        """Return the lines of a row, each [name, kind, *figures]. wanted: (dataset, column) of each figure."""
        measured, published = [], []
        for place, column in wanted:
            line = own.get(place) or next(iter(own.values()), None)
            entry = self.published.find(line.row if line else Row("", row.name, "", self.shots))
            if line and line.backbones - {BACKBONE}:
                entry = None
            measured.append(measured_cell(own.get(place), measured_column(column, entry)))
            published.append("" if place == AVERAGE and not self.comparable else published_cell(entry, place, column))
        return [[row.name, "measured", *measured]] * bool(row.jobs) + [[row.name, "published", *published]]


def measured_cell(line: Line | None, column: str) -> str:
    if line is None:
        return ""
    if line.row.trainer in UNTRAINED and column not in (*line.columns, H_OF_MEANS):
        column = next(iter(line.columns))  # the same with any number of shots
    return line.text(column)


def published_cell(entry: dict | None, place: str, column: str) -> str:
    figures = entry["figures"].get(place, {}) if entry else {}
    column = OTHER_IMAGES if OTHER_IMAGES in figures else column
    return with_deviation(figures[column], deviation_of(entry, place, column)) if entry and column in figures else ""
