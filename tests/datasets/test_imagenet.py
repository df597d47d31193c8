"""ImageNet and the test sets of its classes, read from small trees with the true layouts."""

import random
from pathlib import Path

import pytest

from basics import UserError
from dassl.data import DataManager
from dassl.data.datasets import build_dataset

NAMES = {"n01440764": "tench", "n01443537": "goldfish", "n02119789": "kit fox", "n03095699": "container ship"}
SHIFTS = {
    "ImageNetV2": ("imagenetv2", "imagenetv2-matched-frequency-format-val"),
    "ImageNetSketch": ("imagenet-sketch", "images"),
    "ImageNetA": ("imagenet-adversarial", "imagenet-a"),
    "ImageNetR": ("imagenet-rendition", "imagenet-r"),
}


def write_names(folder):
    (folder / "classnames.txt").write_text("".join(f"{folder} {name}\n" for folder, name in NAMES.items()))


@pytest.fixture
def imagenet(cfg, tmp_path, put):
    cfg.DATASET.NAME = "ImageNet"
    folder = tmp_path / "imagenet"
    put(folder / "images" / "train", [f"{wnid}/{wnid}_{n}.JPEG" for wnid in NAMES for n in range(11)])
    put(folder / "images" / "val", [f"{wnid}/ILSVRC2012_val_{n:08}.JPEG" for wnid in NAMES for n in range(5)])
    write_names(folder)
    return folder


def names(items):
    return [Path(item.impath).name for item in items]


def test_shots_come_from_sorted_folders_and_val_equals_test(cfg, imagenet):
    cfg.DATASET.NUM_SHOTS = 4
    rng = random.Random(1)
    sampled = [f for wnid in NAMES for f in rng.sample(sorted(f"{wnid}_{n}.JPEG" for n in range(11)), 4)]

    data = build_dataset(cfg)

    assert names(data.train_x) == sampled and data.classnames == list(NAMES.values())
    assert names(data.test)[:5] == [f"ILSVRC2012_val_{n:08}.JPEG" for n in range(5)] and len(data.test) == 20
    assert data.val is data.test
    assert data.rng.random() == rng.random(), "val draws nothing, as in the original"


def test_base_and_new_halves_apply_to_val_too(cfg, imagenet):
    cfg.DATASET.SUBSAMPLE_CLASSES = "new"
    manager = DataManager(cfg)
    assert manager.dataset.classnames == ["kit fox", "container ship"]
    assert {item.label for item in manager.dataset.val} == {0, 1} and len(manager.val_loader.dataset) == 10


def test_an_old_listing_is_ignored_with_a_note(cfg, imagenet, capsys):
    (imagenet / "preprocessed.pkl").write_bytes(b"not a pickle at all")
    assert len(build_dataset(cfg).train_x) == 44
    assert "preprocessed.pkl, because a pickle can run code; the folders are listed" in capsys.readouterr().err


def flatten(imagenet):
    val = imagenet / "images" / "val"
    for path in list(val.glob("*/*")):
        path.rename(val / f"{path.parent.name}_{path.name}")
    for folder in list(val.glob("n*")):
        if folder.is_dir():
            folder.rmdir()


def drop_a_name(imagenet):
    (imagenet / "classnames.txt").write_text("n01440764 tench\nn01443537 goldfish\n")


def empty_a_class(imagenet):
    for path in (imagenet / "images" / "val" / "n02119789").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flatten, "val: expected images in 4 class folders, got none in 4, first: n01440764, n01443537, n0"),
        (empty_a_class, "val: expected images in 4 class folders, got none in 1, first: n02119789"),
        (drop_a_name, "classnames.txt: expected names for 4 class folders, got none for 2, first: n02119789"),
        (lambda folder: (folder / "classnames.txt").unlink(), "classnames.txt: expected a file"),
    ],
)  # fmt: skip
def test_missing_files_are_named(cfg, imagenet, damage, message):
    damage(imagenet)
    with pytest.raises(UserError, match=message):
        build_dataset(cfg)


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shifted_dataset_is_test_only_and_labels_its_own_classes(cfg, tmp_path, put, name, capsys):
    folder = tmp_path / SHIFTS[name][0]
    images = folder / SHIFTS[name][1]
    numbered = name == "ImageNetV2"  # 0 .. 999; listed by number, not by name
    classes = {str(n): name for n, name in enumerate(NAMES.values())} if numbered else dict(list(NAMES.items())[1:])
    put(images, [f"{c}/{n}.jpeg" for c in classes for n in (1, 2)])
    put(images, ["README.txt", ".hidden/a.jpeg"])
    write_names(folder)
    cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS = name, 1

    data = build_dataset(cfg)

    found = [(Path(item.impath).relative_to(images).as_posix(), item.label, item.classname) for item in data.test]
    assert found == [(f"{c}/{n}.jpeg", label, classes[c]) for label, c in enumerate(classes) for n in (1, 2)]
    assert len(data.train_x) == len(data.test) and not data.val, "nothing is sampled: the images are for testing"
    assert not (folder / "split_fewshot").exists()
