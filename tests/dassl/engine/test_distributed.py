"""One run on several processes (torchrun), with gloo on the CPU."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from basics import UserError
from dassl.config import get_cfg_default
from dassl.engine import distributed

ROOT = Path(__file__).parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
METHODS = (
    "CoOp CoCoOp MaPLe IVLP VPT SEP RPO LP KgCoOp TCP MMA PromptSRC LASP DePT PLOTPP MMRL CLIPAdapter TaskRes".split()
)
METHODS += ["CLIPLoRA"]
RUN = ["--trainer", "RPO", "--seed", "1", "--shots", "4", "--batch-size", "6", "--device", "cpu"]
RUN += ["--config-file", "configs/trainers/RPO/tiny.yaml", "--dataset-config-file", "configs/datasets/digits.yaml"]


def start(*words, processes=1, script="train.py"):
    command = [*TORCHRUN, str(processes)] if processes > 1 else [sys.executable]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, script, *map(str, words)], cwd=ROOT, env=environment, **pipes)


def finish(process, status=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    return out, err


def losses(folder):
    path = folder / "metrics.csv"
    return [float(row["loss"]) for row in csv.DictReader(path.read_text().splitlines())] if path.is_file() else []


def answers(folder):
    rows = csv.DictReader((folder / "predictions.csv").read_text().splitlines())
    return [(row["impath"], row["predicted"]) for row in rows]


def assert_alike(folder, expected):
    assert losses(folder) == pytest.approx(losses(expected), rel=1e-5)
    assert answers(folder) == answers(expected)
    mine, other = (json.loads((each / "results.json").read_text()) for each in (folder, expected))
    assert mine["metrics"]["accuracy"] == other["metrics"]["accuracy"]


def compare_methods(folder, methods, processes):
    """Train methods on one process and on several; return their results."""
    for n in (1, processes):
        finish(start(folder, *methods, processes=n, script="tests/distributed_methods.py"))
    return [json.loads((folder / f"{n}.json").read_text()) for n in (1, processes)]


def assert_methods_alike(one, several):
    for method, expected in one.items():
        assert several[method]["losses"] == pytest.approx(expected["losses"], rel=1e-5), method
        assert several[method]["answers"] == expected["answers"], method
        assert several[method]["paths"] == expected["paths"], method


def test_two_processes_compute_what_one_does(tmp_path):
    assert_methods_alike(*compare_methods(tmp_path, ["RPO", "CoCoOp", "KgCoOp"], 2))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_every_method_computes_the_same_on_several_processes(tmp_path, processes):
    assert_methods_alike(*compare_methods(tmp_path, METHODS, processes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of one process."""
    folder = tmp_path_factory.mktemp("one")
    finish(start(*RUN, "--epochs", 8, "--output-dir", folder))
    return folder


def wait_for_epochs(folder, number):
    end = time.monotonic() + 120
    while len(losses(folder)) < number:
        assert time.monotonic() < end
        time.sleep(0.05)


def processes_of(parent):
    listed = subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in listed]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("then", [1, 2, 3])
def test_a_run_that_lost_a_process_resumes_on_any_number(whole, tmp_path, victim, then):
    run = start(*RUN, "--epochs", 8, "--output-dir", tmp_path, processes=2)
    wait_for_epochs(tmp_path, 2)
    os.kill(processes_of(run)[victim], signal.SIGKILL)
    begin = time.monotonic()
    run.communicate(timeout=60)
    assert run.returncode and time.monotonic() - begin < 45 and len(losses(tmp_path)) < 8
    _, err = finish(start(*RUN, "--epochs", 8, "--output-dir", tmp_path, processes=then))
    assert err.count("Resumed from") == 1
    assert_alike(tmp_path, whole)


@pytest.mark.slow
def test_a_stop_signal_saves_and_ends_all_processes(whole, tmp_path):
    run = start(*RUN, "--epochs", 8, "--output-dir", tmp_path, processes=2)
    wait_for_epochs(tmp_path, 2)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode and json.loads((tmp_path / "status.json").read_text())["state"] == "stopped"
    finish(start(*RUN, "--epochs", 8, "--output-dir", tmp_path, processes=2))
    assert_alike(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, message",
    {
        "--trainer ProGrad": "got ProGrad, which needs all images of a batch in one. Start one process.",
        "--trainer LinearProbeCLIP": "got LinearProbeCLIP, which needs all images",
        "--batch-size 1": "TRAIN_X.BATCH_SIZE: expected at least 2 images in a batch, one for each process, got 1.",
        "TRAIN.MIXUP 0.5": "TRAIN.MIXUP, TRAIN.CUTMIX, TRAIN.CLASS_WEIGHTS: expected 0, 0, and none",
        "--no-resume": "torchrun: expected --seed, and neither --no-resume,",
    }.items(),
)
def test_what_cannot_be_split_is_refused_once(words, message, tmp_path):
    run = start(*RUN, "--output-dir", tmp_path, *words.split(), "--config-file", "", processes=2)
    _, err = run.communicate(timeout=120)
    assert run.returncode and err.count(message) == 1
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize("n, size", [(5, 2), (6, 3), (1, 3), (0, 2), (7, 4)])
def test_shares_cover_everything_once(n, size, monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: size)
    found = []
    for rank in range(size):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found += range(n)[distributed.share(n)]
    assert found == list(range(n))


def test_a_share_of_a_small_batch_is_not_empty(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 3)
    monkeypatch.setattr(distributed, "rank", lambda: 2)
    batches = distributed.SharedBatches(sampler=range(5), batch_size=4, drop_last=False)
    assert list(batches) == [[3], [4]] and [batches.whole(number) for number in range(2)] == [4, 1]


def test_incomplete_variables_of_torchrun_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: expected"):
        distributed.requested()


def test_a_foreign_trainer_is_refused():
    cfg = get_cfg_default()
    trainer = SimpleNamespace(cfg=cfg, for_this_engine=False)
    assert "is not written for this engine. Start one process." in distributed.check_method(trainer)
    assert not dist.is_initialized()
