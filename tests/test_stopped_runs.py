"""Runs that are killed, stopped, or out of something: nothing is lost, and the same command ends in the same bytes."""

import csv
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from processes import Runs

DATA = ["--seed", "0", "--dataset-config-file", "configs/datasets/roman_numerals.yaml"]
SMALL = ["DATASET.NUM_SHOTS", "4", "DATASET.SUBSAMPLE_CLASSES", "base", "DATALOADER.TRAIN_X.BATCH_SIZE", "4"]
SMALL += ["OPTIM.MAX_EPOCH", "3", "TRAIN.PRINT_FREQ", "1"]
EVERY_STEP = ["TRAIN.CHECKPOINT_MINUTES", "1e-9"]
LONG = ["OPTIM.MAX_EPOCH", "1000"]
METHODS = {
    "CoOp": ["TRAIN.CHECKPOINT_FREQ", "1"],
    "RPO": ["TEST.FINAL_MODEL", "best_val"],
    "LP": [],
    "SEP": [],  # goes through the images before it trains
    "VPT": ["TRAINER.VPT.DROPOUT", "0.5"],  # draws from the global random streams while it trains
}
# Each with a mechanism of its own between the steps or inside them.
FURTHER = {
    "PromptSRC": ["TRAINER.PROMPTSRC.GPA_MEAN", "2.0"],  # averages its epochs
    "TipAdapterF": ["TRAINER.TIPADAPTER.AUGMENT_EPOCH", "2"],  # fills a cache before, and searches after the training
    "ProGrad": ["TRAINER.PROGRAD.N_CTX", "4"],  # changes the gradient
    "DePT": ["TRAINER.DEPT.N_CTX", "4"],  # has two learning rates
    "LASP": [],  # draws noise in its loss, and trains part of the image tower
}
WITHOUT_INFLUENCE = ("OUTPUT_DIR", "DATALOADER", "TRAIN")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("cache"))
    first = runs.start(tmp_path_factory.mktemp("first") / "run", ["--no-train", *command("LP")])
    assert first.wait() == 0, first.text()  # from now on the images are there
    yield runs
    runs.close()


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    """Return whole(method): the folder of its undisturbed run, and the number of lines it printed (`lines_of_work`)."""
    made = {}

    def of(method):
        if method not in made:
            folder = tmp_path_factory.mktemp("whole") / method
            run = runs.start(folder, command(method))
            assert run.wait() == 0, run.text()
            made[method] = folder, lines_of_work(run.text())
        return made[method]

    return of


def command(method, *more):
    return ["--trainer", method, *DATA, *SMALL, *(METHODS | FURTHER)[method], *more]


def read(folder, name):
    """Read a JSON file of a run, or {} before it is there."""
    path = folder / name
    return json.loads(path.read_text()) if path.is_file() else {}


def rows(folder):
    path = folder / "metrics.csv"
    table = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    return [{key: value for key, value in row.items() if key != "seconds"} for row in table]


def outcome(folder):
    """Return everything that a run leaves, except times and paths."""
    results = read(folder, "results.json")
    for key in ("seconds", "peak_memory_mib", "model_dir"):
        del results[key]
    for key in WITHOUT_INFLUENCE:
        del results["config"][key]
    checkpoints = {path.relative_to(folder): path.read_bytes() for path in folder.glob("*/*")}
    return results, rows(folder), checkpoints


def lines_of_work(text):
    """Count the lines that a run has printed since it began to build."""
    return text.partition("** Environment **")[2].count("\n")


def killed_and_done(runs, folder, arguments, kills, lines):
    """Kill a run `kills` times, after a random number of lines (below `lines`) and a little while; then let it end."""
    moments = []
    while len(moments) < kills:
        moment, run = random.randrange(lines), runs.start(folder, arguments)
        while lines_of_work(run.text()) <= moment and not run.ended():
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        run.kill()
        if run.wait() == -signal.SIGKILL:
            moments.append(run.text().splitlines()[-1])
        else:
            lines = lines_of_work(run.text())  # it ended before: the next one earlier
    print("killed after", *moments, sep="\n  ")
    last = runs.start(folder, arguments)
    assert last.wait() == 0, last.text()


# A few kills with data workers; among the slow tests, many kills of each method, with and without them.
MANY_KILLS = [pytest.param(method, workers, 20, marks=pytest.mark.slow) for method in METHODS for workers in "02"]
MANY_KILLS += [pytest.param(method, "0", 8, marks=pytest.mark.slow) for method in FURTHER]


@pytest.mark.parametrize(("method", "workers", "kills"), [("RPO", "2", 2), *MANY_KILLS])
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(runs, whole, tmp_path, method, workers, kills):
    undisturbed, lines = whole(method)
    arguments = command(method, "DATALOADER.NUM_WORKERS", workers, *EVERY_STEP)
    killed_and_done(runs, tmp_path / "killed", arguments, kills, lines)
    assert outcome(tmp_path / "killed") == outcome(undisturbed)
    assert read(tmp_path / "killed", "status.json")["state"] == "done"
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_an_evaluation_killed_at_random_moments_ends_in_the_same_bytes(runs, whole, tmp_path):
    trained, lines = whole("CoOp")
    arguments = ["--eval-only", "--model-dir", str(trained), *command("CoOp", "DATASET.SUBSAMPLE_CLASSES", "new")]
    killed_and_done(runs, tmp_path / "killed", arguments, 2, lines)
    assert runs.start(tmp_path / "whole", arguments).wait() == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def under_way(runs, folder, *more):
    """Start a run and return it in the middle of its training."""
    run = runs.start(folder, command("RPO", *LONG, *more))
    run.until(lambda: "\nepoch [" in run.text())
    return run


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_after_its_step(runs, tmp_path, signum, status):
    run = under_way(runs, tmp_path / "run", "DATALOADER.NUM_WORKERS", "2")
    run.kill(signum, workers=True)  # schedulers and terminals send it to all
    assert run.wait() == status
    message = f"stopped by {signum.name} after epoch "
    assert message in run.text() and "Run the same command to resume" in run.text() and "Traceback" not in run.text()
    found = read(tmp_path / "run", "status.json")
    assert found["state"] == "stopped" and found["why"].startswith(message)
    epoch, _, batch = found["why"].removeprefix(message).partition(", batch ")
    # It resumes with exactly the next step.
    again = runs.start(tmp_path / "run", command("RPO", *LONG))
    done = f"{int(epoch) - 1} epochs and {batch} batches" if batch else f"{epoch} epochs"
    again.until(lambda: f": {done} are done" in again.text())
    again.kill()
    again.wait()


def test_a_stopped_run_ends_in_the_same_bytes(runs, whole, tmp_path):
    undisturbed, _ = whole("RPO")
    run = runs.start(tmp_path / "run", command("RPO"))
    run.until(lambda: "epoch [2/3] batch [1/5]" in run.text())
    run.kill(signal.SIGTERM)
    assert run.wait() == 143
    assert runs.start(tmp_path / "run", command("RPO")).wait() == 0
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_a_second_run_in_one_folder_is_refused_and_the_first_continues(runs, tmp_path):
    first = under_way(runs, tmp_path / "run")
    second = runs.start(tmp_path / "run", command("RPO", *LONG))
    assert second.wait() == 75
    assert f"got one in use by process {first.pid} on " in second.text()
    status = read(tmp_path / "run", "status.json")
    assert (status["state"], status["pid"]) == ("running", first.pid)
    first.kill(signal.SIGTERM)
    assert first.wait() == 143
    third = under_way(runs, tmp_path / "run")  # the folder is free at once, also after kill -9
    third.kill()
    third.wait()
    fourth = runs.start(tmp_path / "run", command("RPO", *LONG))
    fourth.until(lambda: f"did not record its end; was it killed? (process {third.pid} on " in fourth.text())
    fourth.kill()
    fourth.wait()


def test_a_full_disk_loses_nothing_that_was_saved(runs, whole, tmp_path):
    undisturbed, _ = whole("RPO")
    run = runs.start(tmp_path / "run", command("RPO", *EVERY_STEP))
    run.until(lambda: "epoch [2/3]" in run.text())
    run.kill()
    run.wait()
    saved = (tmp_path / "run" / "state.pt").read_bytes()
    full = runs.start(tmp_path / "run", command("RPO", *EVERY_STEP), file_limit=len(saved) // 2)
    assert full.wait() == 2
    assert ": expected a writable file, got an error: " in full.text() and "Traceback" not in full.text()
    assert (tmp_path / "run" / "state.pt").read_bytes() == saved
    assert not list(tmp_path.rglob("*.tmp"))
    status = read(tmp_path / "run", "status.json")
    assert status["state"] == "failed" and "writable" in status["why"]
    assert runs.start(tmp_path / "run", command("RPO")).wait() == 0
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_a_read_only_folder_is_refused(runs, tmp_path):
    (tmp_path / "run").mkdir(mode=0o555)
    run = runs.start(tmp_path / "run", command("LP"), unprivileged=True)
    assert run.wait() == 2
    lock = tmp_path / "run" / ".lock"
    assert f"error: {lock}: expected an accessible file, got an error: Permission denied" in run.text()
    assert "Traceback" not in run.text() and not list((tmp_path / "run").iterdir())


def test_a_dead_data_worker_is_reported_with_its_cause(runs, tmp_path):
    run = under_way(runs, tmp_path / "run", "DATALOADER.NUM_WORKERS", "2")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    run.until(lambda: len(children.read_text().split()) >= 2)
    worker = int(children.read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    assert run.wait() == 2
    assert f"error: a data worker died (process {worker}): it was killed from outside" in run.text()
    assert "DATALOADER.NUM_WORKERS is 2" in run.text() and "Traceback" not in run.text()
    assert read(tmp_path / "run", "status.json")["state"] == "failed"


def test_a_refused_run_leaves_the_other_runs_status_unchanged(runs, whole):
    folder, _ = whole("LP")
    before = outcome(folder), read(folder, "status.json")
    other = runs.start(folder, command("LP", "OPTIM.LR", "0.5"))
    assert other.wait() == 2 and "OPTIM.LR: 0.01 there, 0.5 now" in other.text()
    evaluation = runs.start(folder, ["--eval-only", "--model-dir", str(folder), *command("LP")])
    assert evaluation.wait() == 2 and "expected a folder without a training run" in evaluation.text()
    assert (outcome(folder), read(folder, "status.json")) == before
