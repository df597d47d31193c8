"""What the benchmark prints, draws and returns; what is measured stands in test_counted_work.py."""

import json

import pytest
import torch

from basics import UserError
from benchmarks import features, gpu, measure, plots, run, tables
from benchmarks.methods import PROMPTS, TESTED, Case, build, frozen_clip


@pytest.fixture
def made_up(monkeypatch):
    """Rows without measuring: time and memory grow with everything; `wrong` makes the numbers differ."""
    state = {"numbers": "equal", "cases": []}

    def row(case, *args):
        state["cases"].append(case)
        size = case.classes * case.prompts * case.batch
        cost = {"plain s": 4.0 * size, "fast s": 1.0 * size, "plain MiB": 40.0 * size, "fast MiB": 16.0}
        numbers = {"classes": case.classes, "prompts": case.prompts, "batch": case.batch, "numbers": state["numbers"]}
        numbers["device"] = "CPU"
        return {"method": case.method, **numbers, **cost}

    for module in (run, plots, tables):
        monkeypatch.setattr(module, "training_row", row)
    for module in (run, tables):
        monkeypatch.setattr(module, "test_row", row)
        monkeypatch.setattr(module, "memory_row", row)
    monkeypatch.setattr(tables, "memory", lambda case, path, threads: 8.0 * case.classes)
    return state


def call(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["run.py", *words])
    return run.main()


def test_one_row_as_json(made_up, monkeypatch, capsys):
    assert call(monkeypatch, "--method", "CoOp", "--classes", "7", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["method"], row["classes"], row["prompts"]) == ("CoOp", 7, PROMPTS["CoOp"])


@pytest.mark.parametrize(
    "words, told",
    {
        "--rounds 0": "expected an integer of at least 1",
        "--classes 0": "expected an integer of at least 1",
        "--classes 99999": "for which there are names",
        "--text-block -1": "expected an integer of at least 0",
        "--plain-at 20 10": "two increasing numbers up to --classes",
        "--plain-at 10 20 --memory": "a training step alone",
        "--method LP": "a test pass alone",
        "--prompts 100": "RPO has room for 73",
        "--method SEP --prompts 48": "SEP has room for 38",
        "--ours graph": "a graph needs --device cuda",
        "--ours compiled --count": "the other measurements are of the step as it is",
        "--json --profile": "tables alone",
    }.items(),
)
def test_what_cannot_be_measured_is_refused(words, told, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, *words.split())
    assert end.value.code == 2 and told in capsys.readouterr().err


@pytest.mark.parametrize("method", [m for m in PROMPTS if m != "VPT"])
def test_the_most_prompts_are_those_that_the_method_takes(method):
    most, small = run.most_prompts(method), frozen_clip(1, "cpu", torch.float32)
    build(Case(method, most, 1, 1, layers=1), small, ["cat"])
    if method != "RPO":  # its class leaves the check to the trainer
        with pytest.raises(UserError):
            build(Case(method, most + 1, 1, 1, layers=1), small, ["cat"])


@pytest.mark.parametrize("method", [*PROMPTS, *TESTED])
def test_both_paths_of_a_test_pass_give_the_same_logits(method):
    case = Case(method, {**PROMPTS, **TESTED}[method], classes=3, batch=4, layers=2)
    assert measure.test_row(case, count=2, plain_count=2, threads=torch.get_num_threads())["numbers"] == "equal"


def test_the_row_of_a_step_that_runs_out_of_memory_says_so(monkeypatch):
    def fail(case, paths, how):
        if how == "fast":
            raise torch.OutOfMemoryError
        return 1.0, 2.0

    monkeypatch.setattr(gpu, "try_out", fail)
    case = Case("CoOp", 4, classes=3, batch=2, layers=1)
    assert gpu.row(case, ("plain", "fast"), rounds=1)["numbers"] == "out of memory"


def test_wrong_numbers_fail(made_up, monkeypatch, tmp_path):
    made_up["numbers"] = "WRONG"
    assert call(monkeypatch) == 1
    assert call(monkeypatch, "--json") == 1
    assert call(monkeypatch, "--all", "--output", str(tmp_path)) == 1


def test_all_prints_a_table_for_each_question(made_up, monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "--all", "--output", str(tmp_path)) == 0
    out = capsys.readouterr().out
    titles = [line[3:] for line in out.splitlines() if line.startswith("## ")]
    assert titles == ["Training step", "Test pass", "KVCache of a training step"]
    assert " 8,000 " in out  # the plain path's memory at 1000 classes, by the line through 10 and 50
    assert {case.method for case in made_up["cases"]} == {*PROMPTS, *TESTED}
    assert {(c.classes, c.text_block) for c in made_up["cases"]} >= {(1000, 0), (1000, 100), (50, 0)}
    assert (tmp_path / "results.md").read_text() + "\n" == out


def test_a_row_that_cannot_be_measured_fails_and_the_others_follow(made_up, monkeypatch, capsys, tmp_path):
    def killed(*_):
        raise SystemExit("the fast path at C = 100 was killed")

    monkeypatch.setattr(tables, "test_row", killed)
    assert call(monkeypatch, "--all", "--json", "--output", str(tmp_path)) == 1
    rows = json.loads(capsys.readouterr().out)
    assert rows == json.loads((tmp_path / "results.json").read_text())
    assert {row["table"] for row in rows if row.get("numbers", "").startswith("FAILED: the fast path")} == {"Test pass"}
    assert rows[-1]["table"] == "KVCache of a training step"


def test_what_is_measured_is_kept_at_once(made_up, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "test_row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, "--all", "--output", str(tmp_path))
    assert len(json.loads((tmp_path / "results.json").read_text())) == len(tables.TRAINING)
    assert (tmp_path / "results.md").read_text().count("| RPO ") == 4


def test_plots_are_drawn_for_classes_prompts_and_batch(made_up, tmp_path):
    case = Case("RPO", 4, 50, 4)
    assert plots.plot_sweeps(case, {"classes": (10, 20), "batch": (1, 2)}, tmp_path / "new", 1, 1) == 0
    rows = json.loads((tmp_path / "new" / "RPO.json").read_text())
    assert [row["classes"] for row in rows["classes"]] == [10, 20] and [r["batch"] for r in rows["batch"]] == [1, 2]
    assert (tmp_path / "new" / "RPO.svg").read_text().count("<path") > 20
    made_up["numbers"] = "WRONG"
    assert plots.plot_sweeps(case, {"classes": (10,)}, tmp_path / "new", 1, 1) == 1


def test_kept_features_give_the_same_numbers(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["features.py", "--layers", "1", "--rounds", "1", "--classes", "3", "--json"])
    monkeypatch.setattr(features, "ROWS", (("CoOp", 4, 2), ("RPO", 4, 2)))
    assert features.main() == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == ["CoOp", "RPO"] and all(row["work ratio"] > 1.5 for row in rows)


def test_a_row_of_the_gpus_table_has_all_ways_beside_each_other():
    row = gpu.row(Case("CoOp", 4, classes=3, batch=2, layers=1), ("plain", "fast"), rounds=1)
    assert row["numbers"] == "equal" and row["time ratio"] == row["plain ms"] / row["fast ms"]
    assert row["plain MiB"] >= 0 and row["loss difference"] < 1e-4


@pytest.mark.skipif(torch.cuda.is_available(), reason="need a machine without a GPU (CUDA_VISIBLE_DEVICES= hides it)")
def test_the_gpus_table_wants_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    assert gpu.main() == 2 and "error: no CUDA device" in capsys.readouterr().err
