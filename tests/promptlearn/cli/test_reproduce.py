"""`dassl reproduce`: lists, plans, runs, and prints a table; mistakes are one message before any run."""

from pathlib import Path

import pytest

from promptlearn.cli import main
from tests.fake_checkout import FakeCheckout

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    fake = FakeCheckout(tmp_path)
    monkeypatch.chdir(fake.root)
    return fake


def test_a_table_runs_on_the_demo_with_measured_and_published_lines(fake, capfd):
    assert main(["reproduce", "rpo", "--table", "1"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[0] == "arXiv:2308.14960, 1: Base-to-new generalization"
    rows = [line.split()[:3] for line in out.splitlines() if line.startswith("digits")]
    assert rows == [["digits", name, kind] for name in ("CLIP", "CoOp", "CoCoOp", "RPO") for kind in
                    ("measured", "published")]  # fmt: skip
    assert "91.50 ± 0.71" in out and "built-in demo" in err
    assert len(fake.calls()) == 2 + 3 * 2 * 2  # zero-shot CLIP, and three methods with two seeds
    assert main(["reproduce", "rpo", "--table", "1"]) == 0
    assert capfd.readouterr().out == out and not fake.calls()
    assert main(["results", "output"]) == 0


def test_a_dry_run_prints_the_commands_of_exactly_the_rows_and_runs_nothing(fake, capfd, tmp_path):
    assert main(["reproduce", "rpo", "--table", "4", "--data", str(tmp_path), "--dry-run"]) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2 * 10 * 5 * 10 * 2  # methods, datasets, shots, seeds, base and new
    assert not any("ZeroshotCLIP" in line for line in lines)
    assert sum("--trainer RPO" in line and line.endswith("TRAINER.RPO.K 4") for line in lines) == 1000
    assert "RPO: main_K24" in err and not fake.calls()


def test_the_list_has_every_paper_and_says_what_is_elsewhere(fake, capsys):
    assert main(["reproduce", "--list"]) == 0
    out = capsys.readouterr().out
    for name in ("cocoop", "coop", "family", "maple", "rpo", "sep", "vpt"):
        assert f"{name}: " in out
    assert "(not here) semantic segmentation" in out
    assert main(["reproduce", "sep", "--list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("sep: ") and "rpo: " not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rpoo", "--table", "1"], "unknown paper 'rpoo'. Did you mean 'rpo'?"),
        (["sep", "--table", "side"], "unknown table of sep 'side'. Did you mean 'sides'?"),
        (["rpo", "--table", "cost"], "benchmarks"),
        (["rpo"], "--table: expected one of figure-1, 1, 2"),
        ([], "PAPER: expected one of cocoop, coop"),
        (["rpo", "--table", "1", "--data", "nowhere"], "--data: expected the folder"),
    ],
)
def test_a_mistake_is_one_message_and_status_2_before_any_run(fake, capsys, arguments, message):
    assert main(["reproduce", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and not fake.calls()


@pytest.mark.slow
def test_a_table_of_real_runs_on_the_demo_is_complete(tmp_path, capsys):
    arguments = ["reproduce", "coop", "--table", "initialization", "--output", str(tmp_path), "--checkout", str(ROOT)]
    assert main(arguments) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if " measured " in line]
    assert [row.split(" measured ")[0].strip() for row in rows] == ["random", '"a photo of a"']
    assert all("±" in row and "missing" not in row for row in rows)
