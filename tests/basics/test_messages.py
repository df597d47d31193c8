"""Messages: where they go, and that they do not disturb a progress bar."""

import ast
import io
import os
import re
import sys
from pathlib import Path

import pytest

from basics import Logger, can_redraw, details, error_in, log, notify, show_progress
from basics.messages import fit

ROOT = Path(__file__).parents[2]
# Files below the commands that print: results, and the lines of a run on a console without a bar.
PRINT = {
    "basics/messages.py",
    "dassl/data/datasets/mat_to_json.py",  # a program of its own
    "dassl/engine/calibration.py",
    "dassl/engine/lr_finder.py",
    "dassl/engine/trainer.py",
    "dassl/evaluation/evaluator.py",
}


class Terminal(io.StringIO):
    """A console that a bar is shown on; `shown` is what stays on it, line by line."""

    def isatty(self):
        return True

    def shown(self):
        return [line.rpartition("\r")[2] for line in self.getvalue().split("\n")]


@pytest.fixture
def open_terminal(monkeypatch):
    """Return a function that puts a terminal in place of stdout and stderr. (pytest replaces them after a fixture.)"""

    def replace(kind="xterm"):
        stream = Terminal()
        monkeypatch.setenv("TERM", kind)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return replace


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """Open a log; return a function that reads it."""
    opened = []

    def open_log(verbose=False):
        opened.append(Logger(tmp_path / "log.txt", verbose))
        monkeypatch.setattr(sys, "stdout", opened[0])
        return (tmp_path / "log.txt").read_text

    yield open_log
    for logger in opened:
        logger.close()


@pytest.mark.parametrize("verbose", [False, True])
def test_the_log_has_every_line_and_a_quiet_console_no_details(logged, capsys, verbose):
    read = logged(verbose)
    print("result")
    notify("message")
    log("detail")
    with details():
        print("printed detail")
    assert read() == "result\nmessage\ndetail\nprinted detail\n"
    assert capsys.readouterr() == ("result\ndetail\nprinted detail\n" if verbose else "result\n", "message\n")


def test_a_detail_without_a_log_is_printed(capsys):
    log("detail")
    assert capsys.readouterr().out == "detail\n"


def test_a_message_during_a_bar_has_a_line_of_its_own(open_terminal, logged):
    terminal = open_terminal()
    logged()
    with show_progress(total=2, name="work", delay=0) as bar:
        bar.update()
        print("a", "result")
        notify("a message")
        sys.stdout.write("half a ")
        sys.stdout.write("line\n")
    assert terminal.shown()[:3] == ["a result", "a message", "half a line"]


def test_a_bar_needs_a_terminal_that_can_redraw_a_line(open_terminal):
    assert can_redraw(open_terminal()) and not can_redraw(io.StringIO())
    terminal = open_terminal("dumb")
    assert list(show_progress(range(3), "work", delay=0)) == [0, 1, 2]
    assert terminal.getvalue() == ""


def test_short_work_shows_no_bar(open_terminal):
    terminal = open_terminal()
    for _ in show_progress(range(3), "work"):
        notify("a message")
    print("done")
    assert [line.strip() for line in terminal.shown()] == ["a message"] * 3 + ["done", ""]
    assert "work" not in terminal.getvalue()


def test_the_error_of_a_program_is_found_behind_its_messages():
    assert error_in("Note: a\nerror: x: expected 1\n  got 2\n") == "error: x: expected 1\n  got 2\n"
    assert error_in("error: x") == "error: x"
    assert error_in("Traceback: y\n") == "Traceback: y\n"


def test_what_runs_below_the_commands_prints_only_results():
    printing = set()
    for package in ("basics", "clip", "dassl", "datasets", "trainers"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if re.search(r"\bprint\(", text) and any(
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
                for node in ast.walk(ast.parse(text))
            ):
                printing.add(path.relative_to(ROOT).as_posix())
    assert printing - PRINT - {"basics/additions.py"} == set()


def test_prose_is_broken_between_words_but_commands_and_tables_are_not(monkeypatch):
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((20, 24)))
    laid_out = "  dassl predict models/photos\nfolder \\ predicted  cat  dog"
    with open(os.devnull) as stream:
        assert fit(f"expected a folder, got nothing\n{laid_out}", stream) == (
            f"expected a folder,\ngot nothing\n{laid_out}"
        )
        assert fit("a-path-that-is-longer-than-the-line is missing", stream).splitlines()[1] == "is missing"
