import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import basics
from promptlearn.experiments import PROTOCOLS, Checkout, RunRequest, discover, launch, plan, summarize, table
from promptlearn.experiments.backends.local import LocalBackend, visible_gpus
from promptlearn.experiments.significance_text import statistics_text
from promptlearn.experiments.warm import IMPORTED, is_alive
from tests.fake_checkout import FakeCheckout


@pytest.fixture
def fake(tmp_path):
    return FakeCheckout(tmp_path)


@pytest.fixture
def go(fake):
    """Run RPO with two seeds and return what is not done afterward as (stage, seed)."""
    checkout = Checkout(fake.root)

    def run(verbose=False, at_once=1, **options):
        jobs = plan(PROTOCOLS["base2new"], checkout, fake.output, request=RunRequest(trainers=["RPO"], seeds=[1, 2]))
        backend = LocalBackend(checkout, None, verbose, at_once, **options)
        return [(job.stage.column, job.seed) for job in launch(jobs, backend, verbose)]

    return run


def test_jobs_already_done_are_not_run_again(fake, go):
    assert go() == []
    assert len(fake.calls()) == 6
    assert go() == []
    assert fake.calls() == []


def test_a_folder_without_a_result_is_ignored(fake, go):
    folder = fake.output / "base2new/train_base/digits/shots_16/RPO/tiny/seed1"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("a run that was killed")
    go()
    assert len(fake.calls()) == 6


@pytest.mark.parametrize(
    "key, value",
    [("status", "running"), ("seed", 7), ("shots", 4), ("subsample", "all"), ("trainer", "CoOp"), ("dataset", "Other")],
)
def test_a_result_of_another_request_is_run_again(fake, go, key, value):
    go()
    fake.calls()
    path = fake.output / "base2new/test_new/digits/shots_16/RPO/tiny/seed1/results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert go() == []
    assert len(fake.calls()) == 1


def test_a_damaged_result_is_run_again_and_named(fake, go, capfd):
    go()
    fake.calls()
    path = fake.output / "base2new/test_new/digits/shots_16/RPO/tiny/seed1/results.json"
    path.write_text("{")
    assert go() == []
    assert len(fake.calls()) == 1
    assert capfd.readouterr().err.count(f"{path}: expected a file of a run, got a damaged one") == 1


def test_the_test_of_retrained_prompts_is_run_again(fake, go):
    go()
    fake.calls()
    (fake.output / "base2new/train_base/digits/shots_16/RPO/tiny/seed1/results.json").unlink()
    fake.behave(prompts="other")
    assert go() == []
    assert len(fake.calls()) == 2


def test_an_unchanged_training_keeps_its_test(fake, go):
    go()
    fake.calls()
    (fake.output / "base2new/train_base/digits/shots_16/RPO/tiny/seed1/results.json").unlink()
    assert go() == []
    assert len(fake.calls()) == 1


def test_a_failed_job_stops_only_its_own_test_and_is_tried_again(fake, go, capfd):
    fake.behave(fail=["RPO/tiny/seed1"])
    assert go() == [("base", 1), ("new", 1)]
    assert len(fake.calls()) == 5
    errors = capfd.readouterr().err
    assert "FAILED: RPO on digits, 16 shots, seed 1, base: exit status 1; its log: " in errors
    assert "    error: planted failure" in errors
    assert "not started, because the training that it tests failed" in errors
    fake.behave()
    assert go() == []
    assert len(fake.calls()) == 2


def test_a_successful_job_without_a_result_has_failed(fake, go, capfd):
    (fake.root / "train.py").write_text("")
    assert ("base", 1) in go()
    assert "has no results.json" in capfd.readouterr().err


def test_a_killed_job_names_the_signal(fake, go, capfd):
    (fake.root / "train.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    go()
    assert "killed by SIGKILL; it did not write a log" in capfd.readouterr().err


def test_the_output_of_runs_is_hidden_unless_verbose(fake, go, capfd):
    go()
    shown = capfd.readouterr()
    assert "printed on stdout" not in shown.out + shown.err
    assert shown.err.splitlines()[-1].startswith("6 of 6: RPO on digits, 16 shots, seed ")
    fake.behave(fail=["RPO/tiny/seed1"])
    (fake.output / "base2new/train_base/digits/shots_16/RPO/tiny/seed1/results.json").unlink()
    go(verbose=True)
    shown = capfd.readouterr()
    assert "printed on stdout" in shown.out and "error: planted failure" in shown.err


def test_the_folders_of_all_jobs_exist_before_the_first_ends(fake, go):
    fake.behave(fail=["seed"])
    go()
    assert len(list(fake.output.glob("base2new/*/digits/shots_16/*/tiny/seed*"))) == 6


OVERLAP = """
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
mine = here / f"running.{os.getpid()}"
mine.write_text("")
deadline = time.monotonic() + 5
while len(list(here.glob("running.*"))) < 2 and time.monotonic() < deadline:
    time.sleep(0.01)
with open(here / "seen.txt", "a") as file:
    file.write(f"{len(list(here.glob('running.*')))} {os.environ['OMP_NUM_THREADS']}\\n")
"""


def test_two_jobs_at_a_time_share_the_cores(fake, go, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    (fake.root / "train.py").write_text(OVERLAP)
    go(at_once=2)
    assert "2 3" in (fake.root / "seen.txt").read_text().splitlines()


def test_parallel_jobs_give_the_results_of_sequential_ones(fake, go):
    assert go(at_once=3) == []
    calls = fake.calls()
    assert len(calls) == 6
    trained = [call[call.index("--output-dir") + 1] for call in calls]
    for position, call in enumerate(calls):
        if "--model-dir" in call:
            assert call[call.index("--model-dir") + 1] in trained[:position]


def test_a_method_without_an_answer_has_not_failed(fake, go, capfd):
    fake.behave(not_applicable=["test_new/digits/shots_16/RPO"])
    assert go() == []
    assert "FAILED" not in capfd.readouterr().err and len(fake.calls()) == 6
    assert go() == [] and fake.calls() == []  # it is done
    protocol = PROTOCOLS["base2new"]
    lines = summarize(protocol, discover(protocol, fake.output))
    rpo = next(line for line in lines if line.row.trainer == "RPO")
    assert [rpo.text(column) for column in ("new", "H", "H of seeds")] == ["n/a"] * 3 and rpo.mean("base") > 0
    assert "n/a" in table(protocol, lines) and "RPO" in statistics_text(protocol, lines)


# Works in the folder of one run, as another launcher's train.py does, and leaves its result.
OTHER = """
import pathlib, sys, time
from basics import lock_folder
folder, result = pathlib.Path(sys.argv[1]), sys.argv[2]
with lock_folder(folder) as free:
    assert free
    print("locked", flush=True)
    time.sleep(0.5)
    (folder / "results.json").write_text(result)
"""


def test_a_launcher_waits_for_a_run_of_another_launcher(fake, go, capfd):
    go()
    folder = fake.output / "base2new/train_base/digits/shots_16/RPO/tiny/seed1"
    result = (folder / "results.json").read_text()
    (folder / "results.json").unlink()
    fake.calls()
    command = [sys.executable, "-c", OTHER, str(folder), result]
    other = subprocess.Popen(command, cwd=Path(basics.__file__).parents[1], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "locked\n"
    assert go() == []
    assert other.wait() == 0 and fake.calls() == []
    other.stdout.close()
    assert "another process is working on some of these runs; waiting for it" in capfd.readouterr().err


BUSY_ONCE = """
import pathlib, sys
if not pathlib.Path("busy").exists():
    pathlib.Path("busy").touch()
    sys.exit(75)
"""


def test_a_run_that_another_launcher_started_first_is_tried_again(fake, go):
    fake._write("train.py", BUSY_ONCE + (fake.root / "train.py").read_text())
    assert go() == []
    assert len(fake.calls()) == 6


PRELUDE = """
import os, pathlib, signal, sys, time
from basics import StopSignals, stop_without_parent

folder = pathlib.Path(sys.argv[sys.argv.index("--output-dir") + 1])
(folder / "parent").write_text(str(os.getppid()))
forked = b"warm.py" in pathlib.Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
behavior = pathlib.Path("behavior.json").read_text()
if "die" in behavior:
    os.kill(os.getpid(), signal.SIGKILL)
if "leave" in behavior:
    sys.exit("error: left with a message")
if "orphan" in behavior and forked:
    os.kill(os.getppid(), signal.SIGKILL)
if "sleep" in behavior or "orphan" in behavior and forked:
    with StopSignals() as signals:
        stop_without_parent()  # not before: its signal may come at once
        (folder / "training").touch()
        while signals.requested is None:
            time.sleep(0.05)
        time.sleep(0.3)  # the rest of its step
        (folder / "saved").touch()
        signals.stop_if_requested("")
"""


@pytest.fixture
def forkable(fake):
    """Add empty modules that a warm process imports (basics is real); runs record their parent process."""
    for name in IMPORTED:
        package, _, module = name.partition(".")
        fake._write(f"{package}/__init__.py", "")
        if module:
            fake._write(f"{package}/{module}.py", "")
    (fake.root / "basics").symlink_to(Path(basics.__file__).parent)
    fake._write("train.py", PRELUDE + (fake.root / "train.py").read_text())
    return fake


def parents(fake):
    return {int(text) for path in fake.output.rglob("parent") if (text := path.read_text())}


linux = pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only")


@linux
def test_all_runs_are_forked_from_one_process(forkable, go, capfd):
    assert go() == []
    assert len(forkable.calls()) == 6 and len(parents(forkable)) == 1
    assert parents(forkable) != {os.getpid()}
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{number} of 6" for number in range(1, 7)]


@linux
@pytest.mark.parametrize(
    "behavior, message",
    [("die", "killed by SIGKILL"), ("leave", "exit status 1; it did not write a log\n    error: left with")],
)
def test_a_forked_run_that_fails_is_reported_and_the_others_run(forkable, go, capfd, behavior, message):
    forkable.behave(**{behavior: True})
    assert len(go()) == 6
    assert message in capfd.readouterr().err and len(parents(forkable)) == 1


@linux
def test_runs_of_a_killed_warm_process_stop_and_the_rest_run_anyway(forkable, go, capfd):
    forkable.behave(orphan=True)
    assert go() == [("base", 1)]
    assert len(list(forkable.output.rglob("saved"))) == 1
    assert "exit status 143" in capfd.readouterr().err
    assert len(parents(forkable)) == 2 and os.getpid() in parents(forkable)


def heed_terminal():
    """Handle Ctrl-C and SIGHUP in a child, even if the tests run in the background or under nohup."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


@linux
@pytest.mark.parametrize(
    ("send", "signum"),
    [
        (os.kill, signal.SIGKILL),
        (os.kill, signal.SIGTERM),
        (os.killpg, signal.SIGINT),  # a terminal's Ctrl-C
        (os.killpg, signal.SIGTERM),  # a batch system's stop
        (os.killpg, signal.SIGHUP),  # a closed terminal
    ],
)
def test_forked_runs_finish_their_step_when_the_launcher_stops(forkable, send, signum):
    forkable.behave(sleep=True)
    command = [sys.executable, "-m", "promptlearn.cli", "base2new", "--trainers", "RPO", "--seeds", "1", "--jobs", "1"]
    command += ["--checkout", str(forkable.root), "--output", str(forkable.output)]
    launcher = subprocess.Popen(
        command,
        cwd=Path(basics.__file__).parents[1],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=heed_terminal,
    )
    deadline = time.monotonic() + 30
    while not list(forkable.output.rglob("training")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (warm,) = parents(forkable)
    send(launcher.pid, signum)
    assert launcher.wait() == (-signum if signum == signal.SIGKILL else 128 + signum)
    while is_alive(warm):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(list(forkable.output.rglob("saved"))) == 1  # the warm process waited for its run


@pytest.mark.parametrize("kind", ["fake", pytest.param("forkable", marks=linux)])
def test_each_run_sees_one_gpu(kind, go, request, monkeypatch):
    runs = request.getfixturevalue(kind)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5f")
    assert go(at_once=None) == []
    seen = [path.read_text() for path in runs.output.rglob("gpus")]
    assert set(seen) == {"2", "GPU-5f"} and len(seen) == 6


@pytest.mark.parametrize("gpus, per_gpu, at_once", [("", 1, 1), ("0", 1, 1), ("0,3", 1, 2), ("0,3", 2, 4)])
def test_as_many_runs_as_places_on_gpus_start_at_once(fake, monkeypatch, gpus, per_gpu, at_once):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    backend = LocalBackend(Checkout(fake.root), None, False, per_gpu=per_gpu)
    assert backend.room(0) == at_once and backend.room(at_once) == 0


def test_gpus_are_listed_by_the_driver_unless_the_environment_names_them(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: GPU-1)'\necho 'GPU 1: H100 (UUID: GPU-2)'\n")
    program.chmod(0o755)
    assert visible_gpus() == ["0", "1"]
