"""Bad pictures, end to end: training stops before its first step, and an evaluation counts every image."""

import json
from pathlib import Path

import pytest
from PIL import Image

import train
from basics import error_in

ROOT = Path(__file__).parents[1]
BREEDS = ("Abyssinian", "beagle")
COUNTS = {"trainval": 10, "test": 4}  # of each breed


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Create a DATA folder in the layout of OxfordPets; the pictures are noise."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "oxford_pets"
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    for part, count in COUNTS.items():
        names = [(f"{breed}_{part}{n}", label) for label, breed in enumerate(BREEDS, 1) for n in range(count)]
        for name, _ in names:
            Image.effect_noise((50, 44), 60).convert("RGB").save(folder / "images" / f"{name}.jpg")
        lines = [f"{name} {label} 1 1" for name, label in names]
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(lines))
    return tmp_path


def cut(data, name):
    """Cut a picture in the middle; its path."""
    path = data / "oxford_pets" / "images" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def run(data, method, *opts):
    command = ["--trainer", method, "--root", str(data), "--seed", "1", "--output-dir", str(data / "run")]
    command += ["--dataset-config-file", "configs/datasets/oxford_pets.yaml"]
    command += ["--config-file", f"configs/trainers/{method}/tiny.yaml", "DATASET.NUM_SHOTS", "16"]
    return train.main([*command, "OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", "2", *opts])


@pytest.mark.parametrize("method", ["RPO", "CoOp"])  # on images, and on frozen features
def test_training_names_every_bad_image_and_stops_before_its_first_step(data, method, capsys):
    split = data / "oxford_pets" / "split_zhou_OxfordPets.json"
    assert run(data, method, "OPTIM.MAX_EPOCH", "0") == 0  # makes the split
    sampled = [Path(path).name for path, _, _ in json.loads(split.read_text())["train"]]
    bad = [cut(data, name) for name in (sampled[0], sampled[-1])]
    capsys.readouterr()
    assert run(data, method, "OUTPUT_DIR", str(data / "second")) == 2
    message = error_in(capsys.readouterr().err)
    assert message.startswith("error: 2 of 16 training images are unreadable:") and "Traceback" not in message
    assert all(f"{path}: expected an image" in message for path in bad)
    assert not (data / "second" / "metrics.csv").exists() and not (data / "second" / "results.json").exists()


@pytest.mark.parametrize("method", ["RPO", "ZeroshotCLIP"])
def test_a_test_stops_at_a_bad_image_or_counts_it_as_wrong(data, method, capsys):
    bad = cut(data, "beagle_test2.jpg")
    assert run(data, method) == 2
    assert f"error: {bad}: expected an image" in capsys.readouterr().err
    assert not (data / "run" / "results.json").exists()
    assert run(data, method, "TEST.BAD_IMAGES", "wrong", "OUTPUT_DIR", str(data / "second")) == 0
    metrics = json.loads((data / "second" / "results.json").read_text())["metrics"]
    assert (metrics["n"], metrics["unreadable"], metrics["per_class"]["beagle"]["n"]) == (8, 1, 4)
    assert f"Counted as wrong: {bad}: expected an image" in (data / "second" / "log.txt").read_text()
