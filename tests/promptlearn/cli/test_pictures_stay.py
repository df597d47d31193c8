"""A folder of the user's own pictures is the same before and after every command that takes one."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from promptlearn.cli import main
from promptlearn.experiments import Checkout

CLASSES = ("ant", "bee", "cat", "dog")
FAST = ["--config", "tiny", "--seeds", "1", "--jobs", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a read-only folder of pictures, a CSV file in it, and a dataset `mine` in the current folder's configs."""
    place, rng = tmp_path_factory.mktemp("stay"), np.random.default_rng(0)
    for name in CLASSES:
        (place / "pictures" / name).mkdir(parents=True)
        for number in range(4):
            noise = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(place / "pictures" / name / f"{number}.png")
    rows = [f"{name}/{number}.png,{name}" for name in CLASSES for number in range(4)]
    (place / "pictures" / "table.csv").write_text("\n".join(["path,label", *rows]))
    (place / "configs" / "datasets").mkdir(parents=True)
    (place / "configs" / "datasets" / "mine.yaml").write_text("DATASET:\n  NAME: ImageFolder\n")
    everything = [place / "pictures", *(place / "pictures").rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASSL_CACHE", str(place / "cache"))
        patch.chdir(place)
        yield place
    for path in everything:
        path.chmod(0o755)


def snapshot(folder):
    """Return the size, the times, the mode, and the SHA-256 of everything in a folder, and of itself."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = os.lstat(path)
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode, content
    return found


def run_of(*arguments):
    """Return the arguments of train.py for a run on the pictures."""
    root = Checkout().root
    files = ["--config-file", str(root / "configs/trainers/RPO/tiny.yaml")]
    files += ["--dataset-config-file", str(root / "configs/datasets/image_folder.yaml")]
    return ["train", "--trainer", "RPO", "--seed", "1", "--shots", "2", *files, *arguments]


# In this order: later commands use what earlier ones wrote to output/.
COMMANDS = {
    "train": run_of("--root", "pictures", "--epochs", "1", "--output-dir", "output/run"),
    "a table": run_of("--root", "pictures/table.csv", "--epochs", "1", "--output-dir", "output/table"),
    "eval": run_of("--root", "pictures", "--eval-only", "--model-dir", "output/run", "--output-dir", "output/eval"),
    "explain": run_of(
        *("--root", "pictures", "--eval-only", "--explain", "--model-dir", "output/run", "--output-dir", "output/look")
    ),
    "fit": ["fit", "pictures", "--backbone", "tiny", "--epochs", "1", "--shots", "2", "--output", "output/model"],
    "predict": ["predict", "output/model", "pictures"],
    "built-in and own": ["base2new", "--datasets", "digits", "mine", "--data", "pictures", "--trainers"]
    + ["ZeroshotCLIP", *FAST],
    "data list": ["data", "list", "--root", "pictures"],
    "data verify": ["data", "verify", "image_folder", "digits", "--images", "--root", "pictures"],
    "data stats": ["data", "stats", "image_folder", "--root", "pictures"],
    "data prepare": ["data", "prepare", "image_folder", "--root", "pictures"],
    "doctor": ["doctor", "--data", "pictures"],
    "results": ["results", "output"],
    "report": ["report", "output", "--no-explain"],
    "dry run": ["few_shot", "--datasets", "pictures", "t=pictures/table.csv", "--trainers", "RPO", "--dry-run", *FAST],
}
SLOW = {
    "few_shot": ["few_shot", "--datasets", "pictures", "--trainers", "RPO", "--shots", "1", *FAST],
    "transfer": ["cross_dataset", "--source", "pictures", "--datasets", "t=pictures/table.csv", "--trainers"]
    + ["ZeroshotCLIP", *FAST],
    "tune": ["tune", "--trainer", "RPO", "--dataset", "pictures", "--config", "tiny", "--shots", "1", "--vary"]
    + ["OPTIM.LR", "0.01"],
}
ALL = [*COMMANDS.items(), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW.items())]


@pytest.mark.parametrize("name, command", ALL, ids=[*COMMANDS, *SLOW])
def test_the_pictures_stay_as_they_are(place, name, command):
    before = snapshot(place / "pictures")
    assert (train.main(command[1:]) if command[0] == "train" else main(command)) == 0
    assert snapshot(place / "pictures") == before


@pytest.mark.parametrize(
    "command",
    [
        ["fit", ".", "--backbone", "tiny"],
        ["base2new", "--datasets", ".", "--config", "tiny"],
        run_of("--root", "."),
        ["tune", "--trainer", "RPO", "--dataset", ".", "--config", "tiny", "--vary", "OPTIM.LR", "0.1"],
    ],
    ids=lambda command: command[0],
)
def test_an_output_folder_inside_the_pictures_is_refused(place, command, monkeypatch, capsys):
    monkeypatch.chdir(place / "pictures")
    before = snapshot(place / "pictures")
    assert (train.main(command[1:]) if command[0] == "train" else main(command)) == 2
    assert "expected a folder outside of the pictures in" in capsys.readouterr().err
    assert snapshot(place / "pictures") == before


def test_few_shot_samples_are_recorded_in_the_cache(place):
    assert len(list(Path(place, "cache", "datasets").glob("*/split_fewshot/shot_2-seed_1.json"))) == 1
