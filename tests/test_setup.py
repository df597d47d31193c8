"""What is installed, and what `make` does to get there."""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import setuptools

import dassl

ROOT = Path(__file__).parents[1]


@pytest.fixture
def metadata(monkeypatch):
    said = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: said.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return said


PACKAGES = ("basics", "clip", "dassl", "promptlearn")


def test_every_folder_of_the_packages_is_installed_and_nothing_else(metadata):
    files = [path.relative_to(ROOT) for room in PACKAGES for path in (ROOT / room).rglob("*.py")]
    assert {".".join(file.parent.parts) for file in files} == set(metadata["packages"])


def test_the_version_is_that_of_the_package(metadata):
    assert metadata["version"] == dassl.__version__


@pytest.fixture
def copy(tmp_path):
    for name in ("Makefile", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    for path in (".venv/bin/pip", ".venv/bin/python"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    return tmp_path


def planned(folder, target):
    return subprocess.run(["make", "-n", target], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "target, install, run",
    [("demo", "install -e .\n", "scripts/rpo/base2new.sh"), ("test", "install -e '.[test]'", "-m pytest")],
)
def test_make_installs_only_when_setup_py_changed(copy, target, install, run):
    assert install in planned(copy, target) and run in planned(copy, target)
    for stamp in (".venv/installed", ".venv/installed-test"):
        (copy / stamp).write_text("")
    assert "install -e" not in planned(copy, target) and run in planned(copy, target)
    later = (copy / ".venv/installed").stat().st_mtime + 10
    os.utime(copy / "setup.py", (later, later))
    assert install in planned(copy, target)


def test_make_makes_the_environment_on_a_fresh_machine(copy):
    shutil.rmtree(copy / ".venv")
    steps = planned(copy, "demo")
    assert steps.index("-m venv .venv") < steps.index("install -e .") < steps.index("base2new.sh")


def test_make_help_names_the_targets():
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "make demo" in shown and "make test" in shown
