"""What a person sees of a training: on a terminal, in a pipe, and in log.txt."""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import train
from promptlearn.cli import main

ROOT = Path(__file__).parents[1]
COLUMNS = 80
EPOCHS = 2
RUN = ["--trainer", "RPO", "--seed", "1", "--classes", "base", "--shots", "2", "--epochs", str(EPOCHS)]


def run_on_terminal(command, environment):
    """Run a command on a terminal of COLUMNS columns and return what it writes there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 2**16)
            except OSError:  # Linux reports a closed terminal so
                break
            if not part:
                break
            written += part
    os.close(ours)
    return process.returncode, written.decode().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train on a terminal: the folder, and what the terminal got."""
    folder = tmp_path_factory.mktemp("terminal") / "run"
    command = [sys.executable, "train.py", *RUN, "--output-dir", str(folder)]
    status, text = run_on_terminal(command, {"TERM": "xterm", "DASSL_CACHE": str(folder.parent / "cache")})
    assert status == 0, text
    return folder, text


def lines_on(text):
    """Return the lines that stay on a terminal."""
    return [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]


def test_a_training_shows_a_summary_one_bar_and_its_results(trained):
    folder, text = trained
    shown = lines_on(text)
    start = shown.index("method    RPO (arXiv 2308.14960)")
    labels = [line.split()[0] for line in shown[start : start + 7]]
    assert labels == ["method", "backbone", "dataset", "shots", "trained", "device", "folder"]
    bars = [line for line in shown if "|" in line]
    assert len(bars) == 1 and re.fullmatch(r"epoch 2/2 100% \|.*\| 00:00 left, loss .*, acc .*, lr .*", bars[0])
    assert "=> result" in shown and f"results in {folder}" in shown
    assert "** Config **" not in text and "batch [" not in text
    assert text.count("\x1b") == 0


def test_no_state_of_the_bar_is_wider_than_the_terminal(trained):
    _, text = trained
    assert max(len(state) for line in text.split("\n") if "|" in line for state in line.split("\r")) <= COLUMNS


def test_the_log_has_what_the_terminal_does_not_show(trained):
    folder, text = trained
    log = (folder / "log.txt").read_text()
    assert "** Config **" in log and "\r" not in log
    assert len(re.findall(r"^epoch \[\d/2\] batch \[\d+/\d+\] time ", log, re.MULTILINE)) >= EPOCHS
    assert "Finish training\nFinished training\nEvaluate on the *test* set\n=> result\n" in log
    assert all(line in log for line in lines_on(text) if "|" not in line)


def test_the_next_commands_work_as_they_are_shown(trained, monkeypatch, capsys):
    folder, text = trained
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DASSL_CACHE", str(folder.parent / "cache"))
    commands = [shlex.split(line) for line in text.split("\n") if line.startswith(("  python", "  dassl"))]
    expected = [["python", "train.py"], ["dassl", "predict"], ["dassl", "report"]]
    assert [command[:2] for command in commands] == expected
    assert train.main(commands[0][2:]) == 0
    assert "5 new classes" in capsys.readouterr().out
    assert main(commands[1][1:]) == 0
    assert "%" in capsys.readouterr().out
    assert main([*commands[2][1:], "--no-explain"]) == 0
    assert (folder / "single_base2new" / "report.html").is_file()


def test_a_pipe_gets_plain_lines_and_one_for_each_short_epoch(trained):
    folder, _ = trained
    command = [sys.executable, "train.py", *RUN, "--output-dir", f"{folder}-piped"]
    environment = os.environ | {"DASSL_CACHE": str(folder.parent / "cache")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\r" not in done.stdout and "\x1b" not in done.stdout
    assert len(re.findall(r"^epoch \[", done.stdout, re.MULTILINE)) == EPOCHS
    results = [(Path(f"{folder}{end}") / "predictions.csv").read_bytes() for end in ("", "-piped")]
    assert results[0] == results[1]


def test_a_long_message_is_broken_between_words_on_a_terminal_only():
    command = [sys.executable, "train.py", "--trainer", "RPO", "--eval-only", "--model-dir", "nowhere/" + "deep/" * 5]
    status, text = run_on_terminal(command, {"TERM": "xterm"})
    shown = text.rstrip("\n").split("\n")
    assert status == 2 and len(shown) > 1 and max(map(len, shown)) <= COLUMNS
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert piped.stderr == " ".join(shown) + "\n"
