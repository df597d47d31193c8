"""What is installed, and what `make` does to get there."""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement

import dassl

ROOT = Path(__file__).parents[1]


@pytest.fixture
def metadata(monkeypatch):
    metadata = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: metadata.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return metadata


PACKAGES = ("basics", "clip", "dassl", "promptlearn")


def test_every_folder_of_the_packages_is_installed_and_nothing_else(metadata):
    files = [path.relative_to(ROOT) for room in PACKAGES for path in (ROOT / room).rglob("*.py")]
    assert {".".join(file.parent.parts) for file in files} == set(metadata["packages"])


def test_the_version_is_that_of_the_package(metadata):
    assert metadata["version"] == dassl.__version__


def test_every_requirement_has_a_known_good_version_in_its_range(metadata):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    requirements = [*metadata["install_requires"], *sum(metadata["extras_require"].values(), [])]
    for requirement in map(Requirement, requirements):
        assert requirement.specifier.contains(pinned[requirement.name.lower().replace("_", "-")]), requirement


@pytest.fixture
def copy(tmp_path):
    for name in ("Makefile", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for path in (".venv/bin/pip", ".venv/bin/python"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    return tmp_path


def planned(folder, target):
    return subprocess.run(["make", "-n", target], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "target, install, run",
    [
        ("demo", "install -c constraints.txt -e .", "scripts/rpo/base2new.sh"),
        ("test", "install -c constraints.txt -e '.[test]'", "-m pytest"),
        ("test-slow", "install -c constraints.txt -e '.[test]'", "-m slow"),
    ],
)
@pytest.mark.parametrize("changed", ["setup.py", "constraints.txt"])
def test_make_installs_only_when_the_requirements_changed(copy, target, install, run, changed):
    assert install in planned(copy, target) and run in planned(copy, target)
    for stamp in (".venv/installed", ".venv/installed-test", ".venv/installed-clusters"):
        (copy / stamp).write_text("")
    assert "install -c" not in planned(copy, target) and run in planned(copy, target)
    later = (copy / ".venv/installed").stat().st_mtime + 10
    os.utime(copy / changed, (later, later))
    assert install in planned(copy, target)


def test_make_test_latest_installs_the_newest_elsewhere(copy):
    steps = planned(copy, "test-latest")
    assert "constraints.txt" not in steps and "--upgrade" in steps and f"{copy}/.venv-latest/bin" in steps


def test_make_creates_the_environment_on_a_fresh_machine(copy):
    shutil.rmtree(copy / ".venv")
    steps = planned(copy, "demo")
    assert steps.index("-m venv .venv") < steps.index("install -c constraints.txt") < steps.index("base2new.sh")


def test_make_help_lists_the_targets():
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"make {target}" in shown for target in ("demo", "test", "test-slow", "test-latest"))
