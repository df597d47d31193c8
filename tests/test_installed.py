"""What the wheel and the sdist hold, and that the wheel alone is enough to work in an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.foreign_repository import make_repository

ROOT = Path(__file__).parents[1]
BUILD = "import setuptools.build_meta as backend, sys; print(getattr(backend, sys.argv[1])(sys.argv[2]))"
FEW_STEPS = ("--seed", "1", "OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1")

pytestmark = pytest.mark.slow


def run(command, folder, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run([*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(kind, source, target):
    """Build a wheel or an sdist with the setuptools that are here: nothing is downloaded."""
    name = run([sys.executable, "-c", BUILD, f"build_{kind}", target], source).splitlines()[-1]
    return target / name


def without_folder(names):
    return {name.partition("/")[2] for name in names} - {""}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Built from the files that git knows, so that nothing which happens to lie around gets in."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in run(["git", "ls-files"], ROOT).splitlines():
        if (ROOT / name).is_file():  # not deleted since
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    return build("sdist", source, target), build("wheel", source, target)


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Built from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist[0]) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", next(folder.iterdir()), folder)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment with the wheel; all that it requires is taken from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    site.joinpath("base.pth").write_text(sysconfig.get_path("purelib") + "\n")  # whose own .pth files are not read
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--no-index", "--no-deps"]
    run([*pip, wheel], folder)
    return folder / "bin", site


@pytest.fixture
def dassl(installed, tmp_path):
    """Runs the command in an empty folder, and checks that it writes nothing into the installation."""
    scripts, site = installed
    before = {path: path.stat().st_mtime_ns for path in site.rglob("*")}

    def call(*arguments, **variables):
        return run([scripts / "dassl", *arguments], tmp_path, PYTHONDONTWRITEBYTECODE="1", **variables)

    yield call
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*")} == before


def test_the_sdist_builds_the_wheel_that_the_checkout_builds(sdist, wheel):
    with zipfile.ZipFile(sdist[1]) as from_checkout, zipfile.ZipFile(wheel) as from_sdist:
        assert sorted(from_sdist.namelist()) == sorted(from_checkout.namelist())
    with tarfile.open(sdist[0]) as archive:
        assert not [name for name in without_folder(archive.getnames()) if name.startswith("tests")]


def test_the_wheel_installs_no_package_with_a_common_name(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"basics", "clip", "dassl", "promptlearn"}
    assert {name for name in names if name.endswith("/LICENSE")}
    for room in ("trainers", "datasets", "configs"):
        here = {path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*") if path.suffix != ".pyc"}
        files = {name for name in here if (ROOT / name).is_file()}
        assert files <= {name.removeprefix("promptlearn/bundle/") for name in names}


def test_all_commands_work_in_an_empty_folder(dassl, tmp_path):
    assert "digits" in dassl("data", "list")
    assert "the demo: everything is in order" in dassl("doctor")
    assert "dassl train --seed 1 --trainer RPO" in dassl("base2new", "--trainers", "RPO", "--dry-run")
    dassl("base2new", "--trainers", "RPO", "--seeds", "1", "--shots", "1")
    assert "RPO" in dassl("results", "output", "--statistics")
    page = tmp_path / "output" / "base2new" / "report.html"
    assert Path(dassl("report", "output").strip()) == page and page.is_file()
    dassl("train", "--trainer", "CoOp", "--output-dir", "output/mine", *FEW_STEPS)
    assert (tmp_path / "output" / "mine" / "results.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_methods_datasets_and_configs_of_the_folder_are_used(dassl, tmp_path):
    texts = {
        "trainers/mine.py": "from dassl.engine import TRAINER_REGISTRY\nfrom trainers.coop import CoOp\n\n\n"
        "@TRAINER_REGISTRY.register()\nclass Mine(CoOp): ...\n",
        "datasets/my_digits.py": "from dassl.data.datasets import DATASET_REGISTRY\n"
        "from datasets.demo.digits import Digits\n\n\n@DATASET_REGISTRY.register()\nclass MyDigits(Digits): ...\n",
        "configs/datasets/my_digits.yaml": "DATASET:\n  NAME: MyDigits\n",
        "configs/trainers/Mine/tiny.yaml": (ROOT / "configs" / "trainers" / "CoOp" / "tiny.yaml").read_text(),
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert "Mine" in dassl("train", "--help")
    assert "my_digits" in dassl("data", "list")
    assert "--config-file configs/trainers/Mine/tiny.yaml" in dassl("base2new", "--trainers", "Mine", "--dry-run")
    files = (
        "--dataset-config-file",
        "configs/datasets/my_digits.yaml",
        "--config-file",
        "configs/trainers/CoOp/tiny.yaml",
    )
    dassl("train", "--trainer", "Mine", *files, "--output-dir", "output", *FEW_STEPS)
    assert json.loads((tmp_path / "output" / "results.json").read_text())["dataset"] == "MyDigits"


def test_a_repository_of_the_family_runs_with_its_own_clip_trainers_and_datasets(installed, tmp_path):
    repository = make_repository(tmp_path)
    files = ("--dataset-config-file", "configs/datasets/shapes.yaml")
    files += ("--config-file", "configs/trainers/PromptCoOp/small_ep3.yaml", "--output-dir", "output")
    flags = ("--root", "DATA", "--seed", "1", "--trainer", "PromptCoOp", *files)
    for command in ((installed[0] / "python", "train.py"), (installed[0] / "dassl", "train")):
        printed = run([*command, *flags], repository, HOME=str(tmp_path))
        assert "backbone: Small/8" in printed and "* accuracy: " in printed
        shutil.rmtree(repository / "output")


def test_a_program_that_uses_a_model_can_import_another_library_named_datasets(dassl, installed, tmp_path):
    dassl("train", "--trainer", "RPO", "--output-dir", "output/model", *FEW_STEPS)
    (tmp_path / "datasets.py").write_text("WORD = 'the other library'\n")
    code = (
        "from promptlearn.classifier import PromptedClassifier\n"
        "model = PromptedClassifier.from_pretrained('output/model')\n"
        "import datasets\n"
        "print(len(model.classnames), datasets.WORD)"
    )
    assert run([installed[0] / "python", "-c", code], tmp_path) == "10 the other library\n"
