"""Runs in any folders: of protocols, single ones, copies, and several folders at once."""

import json
import shutil

import pytest

from basics import UserError
from promptlearn.cli import main
from promptlearn.experiments import PROTOCOLS, find_runs, summarize, table
from promptlearn.experiments.found_runs import SINGLE, SINGLE_HALVES
from tests.made_up_runs import MadeUpRuns

BASE2NEW = PROTOCOLS["base2new"]


@pytest.fixture
def put(tmp_path):
    """Write the results.json of a single run."""

    def write(folder, trainer="RPO", accuracy=90.0, seed=1, subsample="all", shots=16, config=(), **changes):
        settings = {"TRAINER": {"RPO": {"K": 4}}, "OPTIM": {"LR": 0.1}, "SEED": seed, "OUTPUT_DIR": str(folder)}
        settings["INPUT"] = {"SIZE": [40, 40]}
        result = {
            "format": 1,
            "status": "done",
            "task": "train",
            "trainer": trainer,
            "dataset": "Digits",
            "seed": seed,
            "shots": shots,
            "subsample": subsample,
            "backbone": "tiny",
            "prompts_sha256": str(folder),
            "metrics": {"accuracy": accuracy},
            "config": settings | dict(config),
        }
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "results.json").write_text(json.dumps(result | changes))
        return tmp_path / folder

    return write


def rows(found):
    """Return the lines of the printed table, as lists of cells."""
    text = table(found.protocol, summarize(found.protocol, found.jobs)).split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in text]


def own(root, digest="a"):
    """Return the entries of a run on the user's own pictures."""
    dataset = {"dataset": "ImageFolder", "dataset_dir": root, "data_sha256": {"test": digest}}
    return dataset | {"config": {"DATASET": {"ROOT": root}}}


def test_a_protocol_is_found_from_its_output_its_folder_and_above(tmp_path):
    MadeUpRuns(tmp_path / "deep" / "output").base2new(seeds=(1,))
    output = tmp_path / "deep" / "output"
    expected = rows(find_runs([output])[0])
    for folder in (output, output / "base2new", tmp_path):
        (found,) = find_runs([folder])
        assert (found.protocol, found.folder, rows(found)) == (BASE2NEW, output, expected)


def test_several_output_folders_make_one_table(tmp_path):
    for name, seeds in (("here", (1, 2)), ("copy", (2, 3))):
        MadeUpRuns(tmp_path / name).base2new(seeds=seeds)
    here, copy = tmp_path / "here", tmp_path / "copy"
    shutil.move(here / "base2new/test_new/digits/shots_16/RPO/tiny/seed2", tmp_path / "lost")
    (here / "base2new/test_new/digits/shots_16/RPO/tiny/seed2").mkdir()
    (found,) = find_runs([here, copy])
    assert {row[1]: row[-1] for row in rows(found)} == {"zero-shot CLIP": "1", "CoOp": "3", "RPO": "3", "VPT": "3"}
    assert "missing" not in str(rows(found)) and " of " not in str(rows(found))
    assert found.folder.name == "report"
    assert "(1 of 2)" in str(rows(find_runs([here])[0]))


def test_transfers_of_several_folders_have_all_targets(tmp_path, put):
    for output, target in (("a", "braille"), ("b", "digits")):
        rest = "letters/shots_16/RPO/tiny/seed1"
        put(f"{output}/train_source/{rest}", prompts_sha256="same")
        put(f"{output}/cross_dataset/test_{target}/{rest}", accuracy=50.0, prompts_sha256="same")
    (found,) = find_runs([tmp_path / "a", tmp_path / "b"])
    assert rows(found) == [["letters", "RPO", "90.00", "50.00", "50.00", "50.00", "1"]]


def test_single_runs_of_any_layout_are_tabulated_by_what_they_say(tmp_path, put):
    for seed, accuracy in ((1, 90.0), (2, 92.0)):
        put(f"any/layout/{seed}", seed=seed, accuracy=accuracy)
    put("dtd/CoOp/rn50_16shots/seed1", "CoOp", 70.0, dataset="DescribableTextures")
    put("zero", "ZeroshotCLIP", 40.0, shots=-1, seed=99)
    (found,) = find_runs([tmp_path])
    assert found.protocol == SINGLE and found.folder == tmp_path
    assert rows(found) == [  # and no average over runs that were never meant to be compared
        ["digits", "zero-shot CLIP", "40.00", "1"],
        ["digits", "RPO", "91.00 ± 1.41", "2"],
        ["dtd", "CoOp", "70.00", "1"],
    ]


def test_a_run_may_be_given_itself(put):
    (found,) = find_runs([put("first")])
    assert rows(found) == [["digits", "RPO", "90.00", "1"]]


def test_settings_that_differ_name_the_method(tmp_path, put):
    put("four", accuracy=80.0)
    put("eight", accuracy=85.0, config={"TRAINER": {"RPO": {"K": 8}}, "UNKNOWN_HERE": 3})
    put("large", accuracy=95.0, backbone="ViT-B/16", config={"INPUT": {"SIZE": [224, 224]}})  # follows the backbone
    put("few", accuracy=60.0, shots=2)
    names = {row[1]: row[2] for row in rows(find_runs([tmp_path])[0])}
    assert names == {
        "RPO (backbone=tiny, K=8, 16 shots)": "85.00",
        "RPO (backbone=tiny, K=4, 16 shots)": "80.00",
        "RPO (backbone=ViT-B-16, K=4, 16 shots)": "95.00",
        "RPO (backbone=tiny, K=4, 2 shots)": "60.00",
    }


def test_a_test_belongs_to_the_training_of_its_model(tmp_path, put):
    put("first", subsample="base", seed=3, shots=4, prompts_sha256="one")
    evaluated = {"task": "eval", "prompts_sha256": "one", "seed": 77, "shots": -1, "config": {"OPTIM": {"LR": 0.5}}}
    put("first_new", subsample="new", accuracy=60.0, **evaluated)
    put("elsewhere", subsample="new", accuracy=30.0, dataset="Braille", **evaluated)
    (found,) = find_runs([tmp_path])
    assert found.protocol == SINGLE_HALVES
    assert rows(found) == [
        ["braille", "RPO (trained on digits)", "missing", "30.00", "missing", "1"],
        ["digits", "RPO", "90.00", "60.00", "72.00", "1"],
    ]


def test_models_trained_on_other_classes_are_lines_of_their_own(tmp_path, put):
    put("base", subsample="base", prompts_sha256="base")
    put("new", subsample="new", accuracy=80.0)
    put("base_all", task="eval", accuracy=50.0, prompts_sha256="base")
    put("all", dataset="Braille")
    halves, everything = sorted(find_runs([tmp_path]), key=lambda found: found.protocol.name)
    assert rows(halves) == [
        ["digits", "RPO", "90.00", "missing", "missing", "1"],
        ["digits", "RPO (trained on new classes)", "missing", "80.00", "missing", "1"],
    ]
    assert [row for row in rows(everything) if row[0] != "average"] == [
        ["braille", "RPO", "90.00", "1"],
        ["digits", "RPO (trained on base classes)", "50.00", "1"],
    ]


def test_own_pictures_have_their_names_and_copies_are_the_same(tmp_path, put):
    put("a", **own("/home/me/photos"))
    put("b", seed=2, **own("/data/other_machine/photos"))
    put("c", **own("/home/me/birds", "b"))
    put("t", seed=1, **own("/home/me/birds", "t") | {"config": {"DATASET": {"ROOT": "lists/birds.csv"}}, "shots": 4})
    found = {tuple(row[:2]): row[-1] for row in rows(find_runs([tmp_path])[0]) if row[0] != "average"}
    assert found[("photos", "RPO (16 shots)")] == "2"
    assert {name for name, _ in found} == {"photos", "me/birds", "birds/birds"}


def test_runs_that_repeat_others_count_once(tmp_path, put, capsys):
    put("a", accuracy=90.0)
    put("b", accuracy=90.0)
    assert rows(find_runs([tmp_path])[0]) == [["digits", "RPO", "90.00", "1"]] and not capsys.readouterr().err
    put("c", accuracy=80.0)
    assert rows(find_runs([tmp_path])[0]) == [["digits", "RPO", "90.00", "1"]]
    assert "1 runs have the method, dataset, shots, seed, and settings of another one" in capsys.readouterr().err


def test_protocols_and_single_runs_have_tables_of_their_own(tmp_path, put):
    MadeUpRuns(tmp_path / "output").base2new(seeds=(1,))
    put("output/first")
    put("output/tune/trial", config={"TEST": {"SPLIT": "val"}})
    put("output/base", subsample="base", seed=1)
    found = find_runs([tmp_path / "output"])
    assert [each.protocol for each in found] == [BASE2NEW, SINGLE, SINGLE_HALVES]
    assert rows(found[1]) == [["digits", "RPO", "90.00", "1"]]


def test_a_method_need_not_be_in_every_table_for_statistics(tmp_path, put, capsys):
    MadeUpRuns(tmp_path).base2new(seeds=(1,))
    put("first", "LP")
    assert main(["results", str(tmp_path), "--statistics", "CoOp"]) == 0
    out = capsys.readouterr().out
    assert "Statistics of new" in out and "single_runs: single runs on all classes" in out
    assert "Statistics of all" not in out
    assert main(["results", str(tmp_path), "--statistics", "CoOpp"]) == 2


def test_without_a_folder_the_output_of_the_current_one_is_read(tmp_path, put, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["results"]) == 2
    assert "output: expected a folder with runs, got no folder" in capsys.readouterr().err
    put("output/first")
    assert main(["results"]) == 0 and "RPO" in capsys.readouterr().out
    assert main(["report", "--no-explain", "--output", "pages"]) == 0
    assert (tmp_path / "pages" / "single_runs" / "report.html").is_file()


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "nowhere: expected a folder with runs, got no folder. Check the path."),
        ("empty", "empty: expected a folder with runs, got one without results.json in it or below"),
        ("foreign", "foreign: expected a folder with runs, got one without results.json"),
        ("running", "running: expected runs with test results, got 1 without"),
    ],
)
def test_a_folder_without_results_gets_one_message(tmp_path, put, folder, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign" / "photos").mkdir(parents=True)
    put("running/it", status="running")
    put("right")
    for folders in ([folder], ["right", folder]):
        if folders == ["right", "running"]:
            continue
        with pytest.raises(UserError, match=message):
            find_runs([tmp_path / each for each in folders])
