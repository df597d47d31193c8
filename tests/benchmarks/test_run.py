"""What the benchmark prints, plots, and returns. Its measurements are tested in test_counted_work.py."""

import json

import pytest
import torch

from basics import UserError
from benchmarks import features, gpu, measure, plots, run, tables
from benchmarks.methods import FURTHER, PROMPTS, TESTED, Case, build, frozen_clip
from clip import linear


@pytest.fixture(autouse=True)
def library_of_this_test(monkeypatch):
    """Restore the library: measuring chooses one for the whole process."""
    monkeypatch.setattr(linear, "_library", "torch")


@pytest.fixture
def made_up(monkeypatch):
    """Make up rows whose time and memory grow with all sizes. `state["numbers"]` is their verdict."""
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
    monkeypatch.setattr(tables, "short_training_row", row)
    monkeypatch.setattr(tables, "memory", lambda case, path, threads: 8.0 * case.classes)
    return state


def call(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["run.py", *words])
    return run.main()


def test_one_row_is_printed_as_json(made_up, monkeypatch, capsys):
    assert call(monkeypatch, "--method", "CoOp", "--classes", "7", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["method"], row["classes"], row["prompts"]) == ("CoOp", 7, PROMPTS["CoOp"])


@pytest.mark.parametrize(
    "words, message",
    {
        "--rounds 0": "expected an integer of at least 1",
        "--classes 0": "expected an integer of at least 1",
        "--classes 99999": "the number of made-up names, got 99999",
        "--text-block -1": "expected an integer of at least 0",
        "--plain-at 20 10": "two increasing numbers up to --classes",
        "--plain-at 10 20 --memory": "--plain-at: expected a training step",
        "--method LP": "expected a test pass. Add --test",
        "--prompts 100": "expected at most 73 for RPO, got 100",
        "--method SEP --prompts 48": "expected at most 38 for SEP",
        "--ours graph": "expected a GPU. Add --device cuda",
        "--ours compiled --count": "the others measure the eager step",
        "--json --profile": "--json: expected a table",
        "--into RESULTS.md": "--into: expected --steps, --further, or --all",
        "--method MMRL --test 5": "--method MMRL: expected a training step in fp32",
        "--method MMRL --prec bf16": "--method MMRL: expected a training step in fp32",
        "--steps --into missing.md": "--into: expected a Markdown file, got missing.md",
    }.items(),
)
def test_contradictory_arguments_are_refused(words, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, *words.split())
    assert end.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("method", [m for m in PROMPTS if m != "VPT"])
def test_the_number_of_prompts_is_limited_by_the_method(method):
    most, small = run.most_prompts(method), frozen_clip(1, "cpu", torch.float32)
    build(Case(method, most, 1, 1, layers=1), small, ["cat"])
    if method != "RPO":  # its trainer checks this
        with pytest.raises(UserError):
            build(Case(method, most + 1, 1, 1, layers=1), small, ["cat"])


@pytest.mark.parametrize("method", [*PROMPTS, *TESTED])
def test_both_paths_of_a_test_pass_compute_the_same_logits(method):
    case = Case(method, {**PROMPTS, **TESTED}[method], classes=3, batch=4, layers=2)
    assert measure.test_row(case, count=2, plain_count=2, threads=torch.get_num_threads())["numbers"] == "equal"


def test_a_row_reports_that_a_step_ran_out_of_memory(monkeypatch):
    def fail(case, paths, how):
        if how == "fast":
            raise torch.OutOfMemoryError
        return 1.0, 2.0

    monkeypatch.setattr(gpu, "try_out", fail)
    case = Case("CoOp", 4, classes=3, batch=2, layers=1)
    assert gpu.row(case, ("plain", "fast"), rounds=1)["numbers"] == "out of memory"


def test_wrong_numbers_exit_with_status_1(made_up, monkeypatch, tmp_path):
    made_up["numbers"] = "WRONG"
    assert call(monkeypatch) == 1
    assert call(monkeypatch, "--json") == 1
    assert call(monkeypatch, "--all", "--output", str(tmp_path)) == 1


def test_all_prints_one_table_per_section(made_up, monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "--all", "--output", str(tmp_path)) == 0
    out = capsys.readouterr().out
    titles = [line[3:] for line in out.splitlines() if line.startswith("## ")]
    assert titles == [tables.STEPS, tables.MORE_STEPS, tables.FURTHER_STEPS, tables.TEST_PASS, tables.MEMORY_OF_STEP]
    assert " 8,000 " in out  # the plain path's memory at 1000 classes, extrapolated from 10 and 50
    assert {case.method for case in made_up["cases"]} == {*PROMPTS, *TESTED, *FURTHER}
    assert {(c.classes, c.text_block) for c in made_up["cases"]} >= {(1000, 0), (1000, 100), (50, 0)}
    assert (tmp_path / "results.md").read_text() + "\n" == out


@pytest.mark.parametrize("numbers", ["equal", "WRONG"])
def test_steps_replace_their_section_of_a_file_if_the_numbers_are_equal(made_up, monkeypatch, tmp_path, numbers):
    made_up["numbers"] = numbers
    text = f"# Results\n\n## {tables.STEPS}\n\nold\n\n## {tables.MORE_STEPS}\n\nkept\n"
    path = tmp_path / "RESULTS.md"
    path.write_text(text)
    status = call(monkeypatch, "--steps", "--into", str(path), "--output", str(tmp_path))
    assert status == (numbers != "equal")
    new = path.read_text()
    assert ("old" in new) == (new == text) == bool(status)
    assert new.startswith("# Results\n\n") and new.endswith(f"## {tables.MORE_STEPS}\n\nkept\n")
    assert new.count("| RPO ") == (0 if status else 2)


def test_a_new_section_goes_to_the_end_of_a_document():
    assert tables.replace_sections("# A\n", {"B": "text"}) == "# A\n\n## B\n\ntext\n"


def test_a_row_that_cannot_be_measured_fails_and_the_others_follow(made_up, monkeypatch, capsys, tmp_path):
    def killed(*_):
        raise SystemExit("the fast path at C = 100 was killed")

    monkeypatch.setattr(tables, "test_row", killed)
    assert call(monkeypatch, "--all", "--json", "--output", str(tmp_path)) == 1
    rows = json.loads(capsys.readouterr().out)
    assert rows == json.loads((tmp_path / "results.json").read_text())
    assert {row["table"] for row in rows if row.get("numbers", "").startswith("FAILED: the fast path")} == {"Test pass"}
    assert rows[-1]["table"] == tables.MEMORY_OF_STEP


def test_each_row_is_written_as_soon_as_it_is_measured(made_up, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "test_row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, "--all", "--output", str(tmp_path))
    rows = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == len(tables.TRAINING) + len(tables.MORE_CLASSES) + len(FURTHER)
    assert (tmp_path / "results.md").read_text().count("| RPO ") == 4


def test_plots_have_one_column_per_number_that_changes(made_up, tmp_path):
    case = Case("RPO", 4, 50, 4)
    assert plots.plot_sweeps(case, {"classes": (10, 20), "batch": (1, 2)}, tmp_path / "new", 1, 1) == 0
    rows = json.loads((tmp_path / "new" / "RPO.json").read_text())
    assert [row["classes"] for row in rows["classes"]] == [10, 20] and [r["batch"] for r in rows["batch"]] == [1, 2]
    assert (tmp_path / "new" / "RPO.svg").read_text().count("<path") > 20
    made_up["numbers"] = "WRONG"
    assert plots.plot_sweeps(case, {"classes": (10,)}, tmp_path / "new", 1, 1) == 1


def test_cached_features_give_the_same_losses(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["features.py", "--layers", "1", "--rounds", "1", "--classes", "3", "--json"])
    monkeypatch.setattr(features, "ROWS", (("CoOp", 4, 2), ("RPO", 4, 2)))
    assert features.main() == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == ["CoOp", "RPO"] and all(row["work ratio"] > 1.5 for row in rows)


def test_a_row_of_the_gpu_table_compares_all_ways():
    row = gpu.row(Case("CoOp", 4, classes=3, batch=2, layers=1), ("plain", "fast"), rounds=1)
    assert row["numbers"] == "equal" and row["time ratio"] == row["plain ms"] / row["fast ms"]
    assert row["plain MiB"] >= 0 and row["loss difference"] < 1e-4


@pytest.mark.skipif(torch.cuda.is_available(), reason="need a machine without a GPU (CUDA_VISIBLE_DEVICES= hides it)")
def test_the_gpu_table_requires_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    assert gpu.main() == 2 and "error: expected a CUDA device" in capsys.readouterr().err
