"""The entry point: seeds, folders, and one clear message per mistake. Interrupted runs: test_stopped_runs.py."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import train

ROOT = Path(__file__).parents[1]
DIGITS = ["--dataset-config-file", "configs/datasets/digits.yaml"]
SHORT = ["DATASET.NUM_SHOTS", "1", "DATASET.SUBSAMPLE_CLASSES", "new"]
TINY = ["--config-file", "configs/trainers/RPO/tiny.yaml"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def in_checkout(cache, monkeypatch):
    """Run in the checkout, and render the demo datasets once."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DASSL_CACHE", str(cache))


def parsed(log, end_signal):
    """Return the accuracies that CoOp's parse_test_res.py reads in a log: those after a line with the end signal."""
    waiting, accuracies = True, []
    for line in log.read_text().splitlines():
        waiting = waiting and line.strip() != end_signal
        match = re.search(r"\* accuracy: ([\.\deE+-]+)%", line.strip())
        if match and not waiting:
            accuracies.append(float(match.group(1)))
    return accuracies


def test_coops_parser_reads_the_logs_of_training_and_test(in_checkout, tmp_path, capsys):
    opts = ["DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", "DATASET.SUBSAMPLE_CLASSES"]
    flags = ["--trainer", "RPO", "--seed", "1", "--output-dir"]
    trained, tested = tmp_path / "trained", tmp_path / "tested"
    assert train.main([*flags, str(trained), *opts, "base"]) == 0
    assert train.main([*flags, str(tested), "--eval-only", "--model-dir", str(trained), *opts, "new"]) == 0
    for folder, end_signal in [(trained, "Finished training"), (trained, "Finish training"), (tested, "=> result")]:
        accuracy = json.loads((folder / "results.json").read_text())["metrics"]["accuracy"]
        assert parsed(folder / "log.txt", end_signal) == [round(accuracy, 1)]


def test_flags_may_follow_settings_which_may_be_one_word(in_checkout):
    words = ["OPTIM.LR=0.5", "--trainer", "RPO", "SEED", "-1", "DATASET.PROMPT=a = {}", "INPUT.SIZE", "(40, 40)"]
    args = train.parser().parse_intermixed_args([*words, "--no-train"])
    expected = ["OPTIM.LR", "0.5", "SEED", "-1", "DATASET.PROMPT", "a = {}", "INPUT.SIZE", "(40, 40)"]
    assert train.split_pairs(args.opts) == expected and args.trainer == "RPO" and args.no_train


def test_flags_stand_for_keys_and_methods_have_names_in_any_case(in_checkout):
    flags = ["--trainer", "rpo", "--epochs", "3", "--lr", "0.5", "--batch-size", "2", "--shots", "-1"]
    args = train.parser().parse_intermixed_args([*flags, "--classes", "new", "--device", "cpu", *DIGITS, "OPTIM.LR=.5"])
    args.opts = train.split_pairs(args.opts)
    cfg = train.setup_cfg(args)
    assert (cfg.TRAINER.NAME, cfg.OPTIM.MAX_EPOCH, cfg.OPTIM.LR, cfg.USE_CUDA) == ("RPO", 3, 0.5, False)
    assert (cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATASET.NUM_SHOTS) == (2, -1)
    assert cfg.DATASET.SUBSAMPLE_CLASSES == "new"


MISTAKES = {
    "flag and key": (["--epochs", "3", "OPTIM.MAX_EPOCH", "4"], "--epochs, OPTIM.MAX_EPOCH: expected one value, got 3"),
    "learning rate of nothing": (["--find-lr", "--no-train"], "--find-lr: expected neither --eval-only nor --no-train"),
    "unknown key": (["OPTIM.LRR", "1"], "unknown key OPTIM.LRR. Did you mean OPTIM.LR?"),
    "wrong type": (["OPTIM.MAX_EPOCH", "many"], "OPTIM.MAX_EPOCH: expected an integer"),
    "unknown trainer": (["--trainer", "RPOO"], "RPO"),
    "unknown dataset": (["DATASET.NAME", "Digit"], "Digits"),
    "unknown backbone": ([*DIGITS, *TINY, "--backbone", "tin"], "Did you mean 'tiny'?"),
    "no backbone": (["--root", "{tmp}", *DIGITS], "got none. Give --backbone or --config-file"),
    "wrong data folder": (
        ["--root", "/nowhere", "--dataset-config-file", "configs/datasets/oxford_pets.yaml", *TINY],
        "/nowhere",
    ),
    "missing weights": ([*DIGITS, *TINY, "--backbone", "a/b.pt"], "a/b.pt"),
    "missing configuration": (["--config-file", "configs/trainers/RPO/none.yaml"], "none.yaml"),
    "K too large": (["TRAINER.RPO.K", "99"], "got 0 with 99 learned vectors. Use fewer."),
    "image size": (["INPUT.SIZE", "(32, 32)"], "expected (40, 40) for the backbone tiny, got (32, 32)"),
    "no such model": (["--eval-only", "--model-dir", "none"], 'got "none", which does not exist'),
    "nothing to test": (["--eval-only"], "--model-dir: expected the output folder of a trained run"),
    "negative seed": (["--seed", "-5"], "--seed: expected 0 or more, got -5"),
    "batch of none": (["DATALOADER.TRAIN_X.BATCH_SIZE", "0"], "BATCH_SIZE: expected at least 1, got 0"),
    "no method": (["--trainer", ""], "--trainer: expected a method, one of"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_message_and_status_2(in_checkout, tmp_path, capsys, mistake):
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


def test_all_mistakes_are_reported_together(in_checkout, capsys):
    assert train.main(["--trainer", "RPO", "OPTIM.LRR", "1", "TRAINER.RPO.K", "many", "DATASET.NUMSHOTS", "1"]) == 2
    error = capsys.readouterr().err
    assert all(key in error for key in ("OPTIM.LRR", "TRAINER.RPO.K", "DATASET.NUMSHOTS"))


def test_a_missing_seed_is_sampled_and_kept_for_resuming(in_checkout, tmp_path, capsys):
    opts = [*SHORT, "OPTIM.MAX_EPOCH", "1"]
    assert train.main(["--trainer", "RPO", "--output-dir", str(tmp_path), *opts]) == 0
    seed = json.loads((tmp_path / "results.json").read_text())["seed"]
    assert seed >= 0 and f"No seed given; sampled: {seed}" in capsys.readouterr().err
    # The same command resumes the run with its seed.
    assert train.main(["--trainer", "RPO", "--seed", "-1", "--output-dir", str(tmp_path), *opts]) == 0
    assert f"No seed given; using that of the run in {tmp_path}: {seed}" in capsys.readouterr().err


# With cached image features; with images.
@pytest.mark.parametrize("method", [pytest.param("CoOp", marks=pytest.mark.slow), "RPO"])
def test_a_run_exits_together_with_its_workers(in_checkout, tmp_path, method):
    command = [sys.executable, "train.py", "--trainer", method, "--seed", "1", "--output-dir", str(tmp_path / "run")]
    few = [*SHORT, "OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", "2"]
    done = subprocess.run([*command, *few], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "done"


def test_no_resume_starts_over_in_a_new_folder(in_checkout, tmp_path, capsys):
    command = ["--trainer", "LP", "--seed", "0", "--no-resume", "--output-dir", str(tmp_path / "run")]
    opts = [*SHORT, "OPTIM.MAX_EPOCH", "1", "TEST.NO_TEST", "True"]
    folders = [tmp_path / name for name in ("run", "run-2", "run-3")]
    kept = {}
    for folder in folders:
        assert train.main([*command, *opts]) == 0
        assert f"Starting over in {folder}\n" in capsys.readouterr().err
        assert json.loads((folder / "results.json").read_text())["config"]["OUTPUT_DIR"] == str(folder)
        assert kept == {path: path.read_bytes() for path in kept}
        kept |= {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert sorted(tmp_path.iterdir()) == folders
    assert train.main([*command, "--resume", str(tmp_path / "run"), *opts]) == 2
    assert "--resume, --no-resume" in capsys.readouterr().err
