"""Files are written completely or not at all."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from basics import (
    MissingFile,
    UserError,
    cache_dir,
    mkdir_if_missing,
    read_json,
    sweep_litter,
    write_atomic,
    write_json,
)


def test_missing_folders_are_created_and_no_other_file_is_left(tmp_path):
    write_atomic(tmp_path / "a" / "b.bin", b"new")
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"new"
    assert os.listdir(tmp_path / "a") == ["b.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    write_atomic(tmp_path / "a", b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UserError, match="a: expected a writable file, got an error: No space left on device"):
        write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


# Kills writers of a file, one after another, each in the middle of its work, and prints what they left.
KILL_WRITERS = """
import itertools, os, pathlib, random, signal, sys, time
sys.path.insert(0, sys.argv[2])
from basics.files import sweep_litter, write_atomic

path, litter, broken = pathlib.Path(sys.argv[1]), 0, 0
for trial in range(14):
    writer = os.fork()
    if writer == 0:
        for number in itertools.count():
            write_atomic(path, bytes([number % 256]) * 2**20)
    while not path.is_file():
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.1))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    content = path.read_bytes()
    broken += len(content) != 2**20 or len(set(content)) != 1
    litter += len(list(path.parent.iterdir())) - 1
    sweep_litter(path.parent.parent)
    assert list(path.parent.iterdir()) == [path]
print(f"{broken} broken, {litter} left over and swept")
"""


def test_a_killed_writer_leaves_a_whole_file_and_its_litter_is_swept(tmp_path):
    command = [sys.executable, "-c", KILL_WRITERS, str(tmp_path / "below" / "state"), str(Path(__file__).parents[2])]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(printed)
    assert printed.startswith("0 broken, ")


def test_in_a_shared_folder_only_old_litter_is_swept(tmp_path):
    old, young = tmp_path / ".a.json.00000000.tmp", tmp_path / ".a.json.11111111.tmp"
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    sweep_litter(tmp_path, older_than=3600)
    assert list(tmp_path.iterdir()) == [young]
    sweep_litter(tmp_path / "not there")


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match="a: expected a writable file, got an error: File too large"):
            write_atomic(tmp_path / "a", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_a_file_in_place_of_a_folder_is_a_user_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="expected a writable file"):
        write_atomic(tmp_path / "file" / "x", b"")
    with pytest.raises(UserError, match="expected a folder that can be created"):
        mkdir_if_missing(tmp_path / "file" / "x")


def test_json_round_trips_and_is_refused_before_the_file_is_opened(tmp_path):
    path = tmp_path / "x.json"
    write_json({"a": [1, None]}, path)
    assert path.read_text() == '{\n    "a": [\n        1,\n        null\n    ]\n}\n'
    with pytest.raises(TypeError):
        write_json({"a": object()}, path)
    assert read_json(path) == {"a": [1, None]}


def test_missing_or_damaged_json_is_reported_with_its_path(tmp_path):
    with pytest.raises(MissingFile, match=r"x\.json: expected a file, got nothing"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"x\.json: expected valid JSON"):
        read_json(tmp_path / "x.json")


def test_the_environment_decides_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("DASSL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir("demo") == tmp_path / "dassl" / "demo"
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("DASSL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "dassl"
