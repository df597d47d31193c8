"""A run's folder: one process at a time, and a status that is true unless the process was killed."""

import fcntl
import json
import os
import subprocess
import sys

import pytest

from basics import Stopped, UserError, write_json
from dassl.engine import fresh_folder, run_folder
from dassl.engine.run_folder import FolderTaken

HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "a") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("in", flush=True)
    time.sleep(60)
"""


def status(folder):
    return json.loads((folder / "status.json").read_text())


def test_the_status_is_running_and_then_done(tmp_path):
    with run_folder(tmp_path / "a" / "run"):
        found = status(tmp_path / "a" / "run")
        assert (found["state"], found["pid"]) == ("running", os.getpid())
    found = status(tmp_path / "a" / "run")
    assert found["state"] == "done" and found["why"] is None and found["started"] <= found["ended"]


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (UserError("no room"), "failed", "no room"),
        (ValueError("a defect"), "failed", "ValueError: a defect"),
        (Stopped(15, "after epoch 2"), "stopped", "stopped by SIGTERM after epoch 2"),
    ],
)
def test_the_status_records_what_went_wrong(tmp_path, error, state, why):
    with pytest.raises(type(error)), run_folder(tmp_path):
        raise error
    assert (status(tmp_path)["state"], status(tmp_path)["why"]) == (state, why)


def test_a_refused_run_leaves_the_status_unchanged(tmp_path):
    with pytest.raises(FolderTaken), run_folder(tmp_path):
        raise FolderTaken("of another run")
    assert not (tmp_path / "status.json").exists()
    with run_folder(tmp_path):
        pass
    before = status(tmp_path)
    with pytest.raises(FolderTaken), run_folder(tmp_path):
        raise FolderTaken("of another run")
    assert status(tmp_path) == before


def test_only_the_litter_of_killed_writers_is_swept(tmp_path):
    (tmp_path / "below").mkdir()
    kept = [tmp_path / "below" / ".mine.tmp", tmp_path / ".a.12345678.tmp.pt", tmp_path / "a.12345678.tmp"]
    for path in [tmp_path / ".state.pt.0a1b2c3d.tmp", tmp_path / "below" / ".x.00000000.tmp", *kept]:
        path.touch()
    with run_folder(tmp_path):
        left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, tmp_path / "status.json", tmp_path / ".lock"}


def test_the_folder_is_refused_until_the_process_in_it_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdout=subprocess.PIPE)
    write_json({"state": "running", "pid": holder.pid, "host": "here"}, tmp_path / "status.json")
    holder.stdout.readline()
    with pytest.raises(FolderTaken, match=rf"in use by process {holder.pid} on here .*another --output-dir"):
        with run_folder(tmp_path):
            pass
    assert status(tmp_path)["pid"] == holder.pid
    holder.kill()
    holder.communicate()
    with run_folder(tmp_path):
        assert status(tmp_path)["pid"] == os.getpid()


def test_without_file_locks_a_run_continues_with_a_note(tmp_path, monkeypatch, capsys):
    def fail(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", fail)
    with run_folder(tmp_path):
        pass
    assert "cannot be locked" in capsys.readouterr().err
    assert status(tmp_path)["state"] == "done"


def test_a_fresh_folder_is_always_empty(tmp_path):
    assert fresh_folder(tmp_path / "run") == tmp_path / "run"
    assert fresh_folder(tmp_path / "run") == tmp_path / "run"  # still empty
    (tmp_path / "run" / "log.txt").touch()
    assert fresh_folder(tmp_path / "run") == tmp_path / "run-2"
    assert fresh_folder(tmp_path / "run") == tmp_path / "run-3"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="expected a folder that can be created"):
        fresh_folder(tmp_path / "file")
