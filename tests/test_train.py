"""The entry point: the demo end to end, kill -9 in the middle, and one clear message for each mistake."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train

ROOT = Path(__file__).parents[1]
DIGITS = ["--dataset-config-file", "configs/datasets/digits.yaml"]
TINY = ["--config-file", "configs/trainers/RPO/tiny.yaml"]
SHORT = ["DATASET.NUM_SHOTS", "4", "OPTIM.MAX_EPOCH", "12", "DATASET.SUBSAMPLE_CLASSES", "base"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def in_checkout(cache, monkeypatch):
    """The checkout is the current folder, and the demo sets are rendered once."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DASSL_CACHE", str(cache))


def start(folder, cache, *more):
    command = [sys.executable, "train.py", "--trainer", "RPO", "--seed", "0", "--output-dir", str(folder)]
    environment = os.environ | {"DASSL_CACHE": str(cache)}
    return subprocess.Popen([*command, *SHORT, *more], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def result(folder):
    """results.json without what may differ between two equal runs."""
    found = json.loads((folder / "results.json").read_text())
    for key in ("seconds", "peak_memory_mib"):
        del found[key]
    for key in ("OUTPUT_DIR", "DATALOADER"):
        del found["config"][key]
    return found


def rows(folder):
    path = folder / "metrics.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


def test_a_run_killed_in_the_middle_goes_on_and_ends_in_the_same_bytes(tmp_path, cache):
    assert start(tmp_path / "whole", cache).wait() == 0
    killed = start(tmp_path / "killed", cache, "DATALOADER.NUM_WORKERS", "2")  # other workers, same numbers
    deadline = time.time() + 120
    while len(rows(tmp_path / "killed")) < 3 and time.time() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert 3 <= len(rows(tmp_path / "killed")) < 12 and not (tmp_path / "killed" / "results.json").exists()
    assert start(tmp_path / "killed", cache).wait() == 0
    assert "Resumed from" in (tmp_path / "killed" / "log.txt").read_text()
    assert result(tmp_path / "killed") == result(tmp_path / "whole")
    checkpoint = "prompt_learner/model.pth.tar-12"
    assert (tmp_path / "killed" / checkpoint).read_bytes() == (tmp_path / "whole" / checkpoint).read_bytes()
    without_time = [[{**row, "seconds": ""} for row in rows(tmp_path / name)] for name in ("killed", "whole")]
    assert without_time[0] == without_time[1] and len(without_time[0]) == 12


def parsed(log, end_signal):
    """The accuracies that the family's parse_test_res.py reads in a log: those after a line that is the end signal."""
    waiting, found = True, []
    for line in log.read_text().splitlines():
        waiting = waiting and line.strip() != end_signal
        match = re.search(r"\* accuracy: ([\.\deE+-]+)%", line.strip())
        if match and not waiting:
            found.append(float(match.group(1)))
    return found


def test_the_logs_of_training_and_test_are_read_by_the_familys_parser(in_checkout, tmp_path, capsys):
    opts = ["DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", "DATASET.SUBSAMPLE_CLASSES"]
    flags = ["--trainer", "RPO", "--seed", "1", "--output-dir"]
    trained, tested = tmp_path / "trained", tmp_path / "tested"
    assert train.main([*flags, str(trained), *opts, "base"]) == 0
    assert train.main([*flags, str(tested), "--eval-only", "--model-dir", str(trained), *opts, "new"]) == 0
    for folder, end_signal in [(trained, "Finished training"), (trained, "Finish training"), (tested, "=> result")]:
        accuracy = json.loads((folder / "results.json").read_text())["metrics"]["accuracy"]
        assert parsed(folder / "log.txt", end_signal) == [round(accuracy, 1)]


MISTAKES = {
    "unknown key": (["OPTIM.LRR", "1"], "unknown key OPTIM.LRR (nearest: OPTIM.LR)"),
    "wrong type": (["OPTIM.MAX_EPOCH", "many"], "OPTIM.MAX_EPOCH: expected an integer"),
    "unknown trainer": (["--trainer", "RPOO"], "RPO"),
    "unknown data set": (["DATASET.NAME", "Digit"], "Digits"),
    "unknown backbone": ([*DIGITS, *TINY, "--backbone", "tin"], "did you mean 'tiny'?"),
    "no backbone": (["--root", "{tmp}", *DIGITS], "no backbone given: --config-file, or --backbone"),
    "wrong data folder": (
        ["--root", "/nowhere", "--dataset-config-file", "configs/datasets/oxford_pets.yaml", *TINY],
        "/nowhere",
    ),
    "missing weights": ([*DIGITS, *TINY, "--backbone", "a/b.pt"], "a/b.pt"),
    "missing configuration": (["--config-file", "configs/trainers/RPO/none.yaml"], "none.yaml"),
    "K too large": (["TRAINER.RPO.K", "99"], "K 99 overruns the context"),
    "image size": (["INPUT.SIZE", "(32, 32)"], "expected (40, 40), found (32, 32)"),
    "no such model": (["--eval-only", "--model-dir", "none"], 'no folder "none"'),
    "nothing to test": (["--eval-only"], "Give --model-dir"),
    "negative seed": (["--seed", "-5"], "--seed: expected 0 or more, found -5"),
    "batch of none": (["DATALOADER.TRAIN_X.BATCH_SIZE", "0"], "BATCH_SIZE: expected at least 1, found 0"),
    "no method": (["--trainer", ""], "no method given: --trainer, one of"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_message_and_status_2(in_checkout, tmp_path, capsys, mistake):
    arguments, message = MISTAKES[mistake]
    arguments = [word.replace("{tmp}", str(tmp_path)) for word in arguments]
    flags = ["--trainer", "RPO", "--seed", "1", "--output-dir", str(tmp_path / "run")]
    if "--trainer" in arguments:
        flags = flags[2:]
    assert train.main([*flags, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    assert message in error
    assert not (tmp_path / "run" / "results.json").exists()


def test_all_mistakes_are_told_at_once(in_checkout, capsys):
    assert train.main(["--trainer", "RPO", "OPTIM.LRR", "1", "TRAINER.RPO.K", "many", "DATASET.NUMSHOTS", "1"]) == 2
    error = capsys.readouterr().err
    assert all(key in error for key in ("OPTIM.LRR", "TRAINER.RPO.K", "DATASET.NUMSHOTS"))


def test_a_seed_that_was_not_given_is_drawn_and_kept(in_checkout, tmp_path, capsys):
    opts = ["DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", "DATASET.SUBSAMPLE_CLASSES", "new"]
    assert train.main(["--trainer", "RPO", "--output-dir", str(tmp_path), *opts]) == 0
    seed = result(tmp_path)["seed"]
    assert seed >= 0 and f"No seed given; drawn: {seed}" in capsys.readouterr().out
