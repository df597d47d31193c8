import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_checkout import FakeCheckout

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("scripts/*/*.sh"))


@pytest.fixture
def fake(tmp_path):
    (tmp_path / "the checkout").mkdir()
    fake = FakeCheckout(tmp_path / "the checkout")
    shutil.copytree(ROOT / "scripts", fake.root / "scripts")
    return fake


@pytest.fixture
def bash(fake, tmp_path):
    """Run a script of the fake checkout from a folder outside of it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    python(tools / "python3")

    def run(script, *arguments, **environment):
        kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "DATA", "OUTPUT")}
        kept |= {"PATH": f"{tools}:{kept['PATH']}", "PYTHONPATH": str(ROOT), "CONDA_DEFAULT_ENV": "base"}
        return subprocess.run(
            ["bash", str(fake.root / script), *arguments],
            cwd=tmp_path,
            env=kept | environment,
            capture_output=True,
            text=True,
        )

    return run


def python(path, note="used"):
    """A stand-in for a python that notes its use and is the one that runs the tests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n: > "$0.{note}"\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_starts_its_own_method_on_the_demo(bash, fake, script):
    done = bash(script, SEEDS="1")
    assert done.returncode == 0, done.stderr
    method = Path(script).parent.name.replace("_", "")
    trainers = [call[call.index("--trainer") + 1].lower() for call in fake.calls()]
    assert {trainer.removesuffix("clip") for trainer in trainers} == {"zeroshot", method.removesuffix("clip")}
    assert (fake.output / "base2new" / "summary.csv").is_file()


def test_the_environment_and_the_arguments_are_honoured(bash, fake, tmp_path):
    (tmp_path / "images").mkdir()
    done = bash("scripts/rpo/base2new.sh", "oxford_pets", DATA="images", OUTPUT="out", SEEDS="2 5")
    assert done.returncode == 0, done.stderr
    calls = fake.calls()
    assert all(call[call.index("--root") + 1] == str(tmp_path / "images") for call in calls)
    assert [call[call.index("--seed") + 1] for call in calls] == ["1", "1", "2", "2", "5", "5"]
    assert (tmp_path / "out" / "base2new" / "summary.json").is_file() and not fake.output.exists()


def test_seeds_are_1_2_3_and_options_pass_through(bash, fake):
    done = bash("scripts/coop/base2new.sh", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("--seed ")[1][0] for line in lines] == list("11112233")
    assert fake.calls() == []


def test_a_wrong_data_folder_is_one_message_and_status_2(bash):
    done = bash("scripts/rpo/base2new.sh", "oxford_pets", DATA="/nowhere")
    assert done.returncode == 2
    assert done.stderr == (
        "error: the data folder /nowhere is not a folder (expected: the one that holds the data sets)\n"
    )


def test_the_environment_of_the_checkout_is_used_unless_one_is_active(bash, fake, tmp_path):
    own = fake.root / ".venv" / "bin" / "python"
    python(own)
    assert bash("scripts/rpo/base2new.sh", "--dry-run", VIRTUAL_ENV="/active").returncode == 0
    assert not Path(f"{own}.used").exists() and (tmp_path / "tools" / "python3.used").exists()
    assert bash("scripts/rpo/base2new.sh", "--dry-run").returncode == 0
    assert Path(f"{own}.used").exists()


def test_a_python_without_the_dependencies_is_told_what_to_do(bash, fake):
    own = fake.root / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    own.chmod(0o755)
    done = bash("scripts/rpo/base2new.sh")
    assert done.returncode == 2 and "make demo" in done.stderr and "Traceback" not in done.stderr
