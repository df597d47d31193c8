"""What Tab offers."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from promptlearn.cli import main
from promptlearn.cli.completion import SCRIPTS, words

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    "line, expected",
    [
        (["base2"], ["base2new"]),
        (["tr"], ["train"]),
        (["base2new", "--dry"], ["--dry-run"]),
        (["base2new", "--trainers", "RPO", "SE"], ["SEP"]),
        (["base2new", "--trainers", "RPO", "--datasets", "oxford_p"], ["oxford_pets"]),
        (["cross_dataset", "--source", "letters_r"], ["letters_rendition"]),
        (["train", "--trainer", "CoC"], ["CoCoOp"]),
        (["train", "--classes", ""], ["all", "base", "new"]),
        (["fit", "photos", "--method", "MaP"], ["MaPLe"]),
        (["data", "v"], ["verify"]),
        (["data", "prepare", "--root", "data", "oxford_p"], ["oxford_pets"]),
        (["data", "verify", "--im"], ["--images"]),
        (["reproduce", "rp"], ["rpo"]),
        (["completion", "f"], ["fish"]),
        (["fit", "--shots", "4", ""], []),  # files
        (["unknown", ""], []),
    ],
)
def test_commands_flags_and_names_are_completed(line, expected):
    assert words(line) == expected


def test_a_flag_with_one_value_takes_no_second_one():
    assert "RPO" in words(["train", "--trainer", ""]) and words(["train", "--trainer", "RPO", ""]) == []


def test_bash_completes_with_the_printed_script(capsys, tmp_path):
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    program = f"""
dassl() {{ {shlex.quote(sys.executable)} -m promptlearn.cli "$@"; }}
source {shlex.quote(str(tmp_path / "script"))}
COMP_WORDS=(dassl base2new --trainers RPO SE); COMP_CWORD=4; _dassl
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("SEP\n", "")


@pytest.mark.parametrize("shell", [shell for shell in SCRIPTS if shutil.which(shell)])
def test_an_installed_shell_can_parse_its_script(shell, tmp_path):
    (tmp_path / "script").write_text(SCRIPTS[shell])
    done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
