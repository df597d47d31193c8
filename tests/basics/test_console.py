"""A process that was started without stdout, or whose stdout is full."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(code, redirection):
    command = f'exec "$0" -c "$1" {redirection}'
    return subprocess.run(["bash", "-c", command, sys.executable, code], cwd=ROOT, capture_output=True, text=True)


def test_missing_streams_are_opened_before_a_file_takes_their_place(tmp_path):
    code = (
        "from basics import open_missing_streams; open_missing_streams()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w'); print('lost'); file.write(str(file.fileno()))"
    )
    done = python(code, "<&- >&- 2>&-")
    assert done.returncode == 0
    assert int((tmp_path / "file").read_text()) > 2


def test_a_command_without_stdout_does_its_work(tmp_path):
    code = "import sys; from promptlearn.cli.main import main; sys.exit(main(['--version']))"
    for redirection in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        done = python(code, redirection)
        assert done.returncode == 0 and "Traceback" not in done.stderr


def test_a_full_stdout_is_reported_in_one_line():
    done = python("import sys; from promptlearn.cli.main import main; sys.exit(main(['--help']))", ">/dev/full")
    assert done.returncode == 2
    assert done.stderr == (
        "error: the output: expected an accessible file, got an error: No space left on device. "
        "Free some space, or choose another folder.\n"
    )


@pytest.mark.slow
def test_training_with_a_full_or_missing_stdout_succeeds(tmp_path):
    code = (
        "import sys, train\n"
        "sys.exit(train.main(['--trainer', 'LP', '--seed', '1', '--output-dir', sys.argv[1], '--no-resume',\n"
        "    'DATASET.NUM_SHOTS=1', 'OPTIM.MAX_EPOCH=1', 'DATASET.SUBSAMPLE_CLASSES=new']))"
    )
    for redirection in (">/dev/full", ">&- 2>&-"):
        done = python(code, f'"{tmp_path}/run" {redirection}')
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    for folder in ("run", "run-2"):
        assert "Finish training" in (tmp_path / folder / "log.txt").read_text()
        assert (tmp_path / folder / "results.json").is_file()
