"""The log."""

import os
import resource
import subprocess
import sys

import pytest

from basics import UserError
from dassl.utils import setup_logger


@pytest.fixture
def own_stdout(monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back afterward


def close_log():
    sys.stdout.close()


@pytest.mark.usefixtures("own_stdout")
def test_printed_text_goes_to_console_and_file(tmp_path, capsys):
    setup_logger(tmp_path / "run")
    print("hello")
    sys.stdout.writelines(["a\n", "b\n"])
    assert (tmp_path / "run" / "log.txt").read_text() == "hello\na\nb\n"
    assert capsys.readouterr().out == "hello\na\nb\n"
    close_log()


@pytest.mark.usefixtures("own_stdout")
def test_a_second_run_appends_to_the_same_file(tmp_path):
    for word in ("first", "second"):
        setup_logger(tmp_path)
        print(word)
        close_log()
    first, note, second = (tmp_path / "log.txt").read_text().splitlines()
    assert (first, second) == ("first", "second")
    assert note.startswith("Log continued at ")


@pytest.mark.usefixtures("own_stdout")
def test_a_file_name_is_used_unchanged_and_none_does_nothing(tmp_path):
    before = sys.stdout
    setup_logger(None)
    assert sys.stdout is before
    setup_logger(tmp_path / "own.log")
    print("x")
    close_log()
    assert (tmp_path / "own.log").read_text() == "x\n"


@pytest.mark.usefixtures("own_stdout")
def test_the_log_has_the_consoles_attributes(tmp_path):
    console = sys.stdout
    setup_logger(tmp_path)
    assert sys.stdout.encoding == console.encoding
    assert sys.stdout.isatty() == console.isatty()
    close_log()


@pytest.mark.usefixtures("own_stdout")
def test_a_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="expected a folder that can be created"):
        setup_logger(tmp_path / "file")


@pytest.mark.usefixtures("own_stdout")
def test_a_log_on_a_full_disk_is_reported_once(tmp_path, capsys):
    setup_logger(tmp_path / "full.log")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, hard))
    try:
        with pytest.raises(UserError, match=r"full\.log: expected a writable file, got an error: File too large"):
            print("a line that does not fit")
        print("to the console alone")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    close_log()
    assert capsys.readouterr().out.endswith("to the console alone\n")


def test_a_reader_that_leaves_does_not_affect_the_log(tmp_path):
    code = f"from dassl.utils import setup_logger; setup_logger({str(tmp_path)!r}); "
    code += "print('first', flush=True); input(); print('second', flush=True); print('third')"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as run:
        assert run.stdout.readline() == "first\n"
        run.stdout.close()
        _, errors = run.communicate("\n")
    assert (run.returncode, errors) == (0, "")
    assert (tmp_path / "log.txt").read_text() == "first\nsecond\nthird\n"


@pytest.mark.usefixtures("own_stdout")
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_log_that_is_not_a_regular_file_is_refused(tmp_path, kind):
    target, log = tmp_path / "target", tmp_path / "log.txt"
    target.write_text("of another program")
    {"link": lambda: log.symlink_to(target), "pipe": lambda: os.mkfifo(log), "folder": log.mkdir}[kind]()
    with pytest.raises(
        UserError,
        match=r"log\.txt: (expected a regular file|expected an accessible file, got an error: Is a directory)",
    ):
        setup_logger(tmp_path)
    assert target.read_text() == "of another program"
