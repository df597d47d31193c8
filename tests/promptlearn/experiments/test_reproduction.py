"""Every declared table of a paper can be planned, and is printed in its layout."""

import json
from functools import cache
from pathlib import Path

import pytest

from basics import UserError
from dassl.config import get_cfg_default, merge
from dassl.engine import TRAINER_REGISTRY
from promptlearn.experiments import PROTOCOLS, Checkout
from promptlearn.experiments.protocols import UNTRAINED
from promptlearn.experiments.published import Published
from promptlearn.experiments.reproduction import (
    PlannedRow,
    choose_table,
    papers,
    plan_table,
    read_paper,
    show_table,
)
from tests.fake_checkout import FakeCheckout

ROOT = Path(__file__).parents[3]
CHECKOUT = Checkout(ROOT)
TABLES = [(paper, key) for paper in papers(CHECKOUT) for key in read_paper(CHECKOUT, paper).tables]


@cache
def declared(paper, key):
    return read_paper(CHECKOUT, paper).tables[key]


@cache
def check(trainer, config, overrides):
    """Merge a run's settings, and check them against each other and its backbone, as train.py does."""
    cfg = get_cfg_default()
    CHECKOUT.load("trainers").extend_cfg(cfg)
    merge(cfg, [ROOT / f"configs/trainers/{trainer}/{config}.yaml"], [word for each in overrides for word in each])
    method = TRAINER_REGISTRY.get(trainer)
    method.check_cfg(object.__new__(method), cfg)


@pytest.mark.parametrize("demo", [True, False])
@pytest.mark.parametrize(("paper", "key"), TABLES)
def test_every_row_is_planned_with_settings_that_train_py_accepts(paper, key, demo, tmp_path):
    table = declared(paper, key)
    planned = plan_table(table, CHECKOUT, tmp_path, None if demo else tmp_path)
    assert len({row.name for row in planned}) == len(planned) >= len(table.rows)
    for row in planned:
        assert {job.row.trainer for job in row.jobs} <= {spec.trainer for spec in table.rows}
        for job in row.jobs:
            check(job.row.trainer, job.row.config, job.overrides)


@pytest.mark.parametrize(("paper", "key"), TABLES)
def test_the_demo_has_the_rows_of_the_table_on_the_tiny_clip(paper, key, tmp_path):
    table = declared(paper, key)
    planned = plan_table(table, CHECKOUT, tmp_path, None)
    jobs = {job for row in planned for job in row.jobs}
    assert {job.row.config for job in jobs} == {"tiny"} and len({job.seed for job in jobs}) <= 2
    methods = {row.name.partition(" (")[0].partition(",")[0] for row in planned}
    assert methods == {row.name.partition(" (")[0].partition(",")[0] for row in table.rows}
    # Rows may share runs only if their configs differ, of which the demo has one.
    alike = {(row.trainer, str(row.vary)) for row in table.rows if row.trainer}
    assert len({row.jobs for row in planned if row.jobs}) >= min(len(alike), len(planned))


@pytest.mark.parametrize(("paper", "key"), TABLES)
def test_rows_without_a_method_and_named_figures_are_published(paper, key):
    table = declared(paper, key)
    published = Published(table.figures or table.protocol)
    names = {entry["trainer"] for entry in published.entries}
    assert {row.name for row in table.rows if not row.trainer} <= names
    assert published.entries or not table.figures
    assert set(table.groups) <= published.datasets


def test_every_published_figure_of_a_paper_is_found_by_a_row_of_its_table(tmp_path):
    for paper, key in TABLES:
        table = declared(paper, key)
        if table.figures:
            rows = [row for row in plan_table(table, CHECKOUT, tmp_path, tmp_path) if row.jobs]
            text = show_table(table, rows)
            for entry in Published(table.figures).entries:
                for figures in entry["figures"].values():
                    assert all(f"{value:.2f}" in text for value in figures.values()), (paper, key, entry)


def test_the_extreme_few_shot_table_has_ten_seeds_of_ten_datasets(tmp_path):
    _, *rpo = (row for row in plan_table(declared("rpo", "4"), CHECKOUT, tmp_path, tmp_path) if "RPO" in row.name)
    assert [row.name for row in rpo] == [f"RPO, K = 4, {n} shots" for n in (2, 4, 8, 16)]
    assert all(len(row.jobs) == 10 * 10 * 2 for row in rpo)
    assert rpo[0].jobs[0].overrides == (("TRAINER.RPO.K", "4"),)


@pytest.fixture
def fake(tmp_path):
    return FakeCheckout(tmp_path)


def finish(row: PlannedRow, **accuracies):
    """Write results.json of each job; accuracies: column -> accuracy of seed 0."""
    for job in row.jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
        accuracy = accuracies.get(job.stage.column, 50.0) + job.seed
        result = {"format": 1, "status": "done", "backbone": "ViT-B/16", "prompts_sha256": "abc"}
        result |= {"metrics": {"accuracy": accuracy}, **job.request}
        (job.folder / "results.json").write_text(json.dumps(result))


def test_a_table_has_measured_over_published_figures_in_blocks_by_dataset(fake, tmp_path):
    table = read_paper(Checkout(fake.root), "rpo").tables["1"]
    planned = plan_table(table, Checkout(fake.root), fake.output, tmp_path)
    finish(planned[0], base=70.0, new=60.0)
    finish(planned[3], base=80.0, new=70.0)
    lines = show_table(table, planned).splitlines()
    assert lines[0].split() == "dataset method figures base new H".split()
    assert lines[2].split() == "average CLIP measured 71.00 61.00 65.62".split()
    assert lines[3].split() == "average CLIP published 69.34 74.22 71.70".split()
    assert "missing" in lines[4]
    assert lines[8].split("measured")[1].split() == "82.00 ± 1.00 72.00 ± 1.00 76.68 ± 1.00".split()
    assert lines[9].split() == "average RPO published 81.13 75.00 77.78".split()
    assert "dtd RPO published 76.70 ± 1.80 62.13 ± 2.20 68.61" in [" ".join(line.split()) for line in lines]
    assert lines[10].startswith("imagenet")


def test_a_transfer_has_its_targets_in_the_papers_order(fake, tmp_path):
    table = read_paper(Checkout(fake.root), "sep").tables["cross-dataset"]
    lines = show_table(table, plan_table(table, Checkout(fake.root), fake.output, tmp_path)).splitlines()
    assert lines[0].split()[3:6] == ["source", "caltech101", "oxford_pets"] and lines[0].endswith("mean of targets")
    own = [line.split() for line in lines[2:] if "PromptSRC" in line]
    assert [line[:4] for line in own] == [["imagenet", "PromptSRC", "published", "71.27"]]
    assert own[0][-1] == "65.81"


def test_a_table_by_dataset_has_a_column_for_each_and_for_published_groups(fake, tmp_path):
    table = read_paper(Checkout(fake.root), "vpt").tables["1-fgvc"]
    lines = show_table(table, plan_table(table, Checkout(fake.root), fake.output, tmp_path)).splitlines()
    assert lines[0].split() == "method figures oxford_flowers stanford_cars average FGVC".split()
    assert lines[2].split() == "Full measured missing missing missing".split()
    assert lines[3].split() == "Full published 98.80 84.50 88.54".split()


def test_zero_shot_clip_has_the_same_figure_at_every_number_of_shots(fake):
    table = read_paper(Checkout(fake.root), "coop").tables["few-shot"]
    planned = plan_table(table, Checkout(fake.root), fake.output, None)
    finish(planned[0])
    lines = show_table(table, planned).splitlines()
    assert lines[0].split("figures")[1].split("  ") and lines[0].endswith("16 shots")
    assert lines[2].split("measured")[1].split() == ["51.00"] * 5


def test_figures_of_another_backbone_are_not_compared(fake, tmp_path):
    table = read_paper(Checkout(fake.root), "coop").tables["domain-generalization"]
    lines = show_table(table, plan_table(table, Checkout(fake.root), fake.output, tmp_path)).splitlines()
    assert next(line for line in lines if "RN50, CLIP" in line and "published" in line).split()[-1] == "published"
    assert next(line for line in lines if "ViT-B/16, CLIP" in line and "published" in line).split()[-1] == "57.18"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: T", "missing required field `source`"),
        ("title: T\nsource: S\ntables: {a: {title: A, protocol: base3new, rows: []}}", "Did you mean 'base2new'"),
        ("title: T\nsource: S\ntables: {a: {title: A, protocol: base2new, rows: [{nam: x}]}}", "nam"),
    ],
)
def test_a_paper_with_a_mistake_is_refused(fake, text, message):
    (fake.root / "configs" / "reproduce" / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_paper(Checkout(fake.root), "bad")


def test_a_table_that_no_run_can_fill_says_what_to_do_instead():
    with pytest.raises(UserError, match="benchmarks"):
        choose_table(read_paper(CHECKOUT, "rpo"), "rpo", "cost")


def test_the_protocols_of_the_tables_are_ours():
    assert {declared(*table).protocol for table in TABLES} <= set(PROTOCOLS)
    assert not {row.name for table in TABLES for row in declared(*table).rows if row.trainer in UNTRAINED and row.vary}
