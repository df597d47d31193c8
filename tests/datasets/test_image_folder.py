"""Your own photos: class folders with and without parts, CSV files, and a run of RPO on photographs."""

import json
import runpy
from pathlib import Path

import pytest

import train
from basics import UserError
from dassl.data.datasets import build_dataset

ROOT = Path(__file__).parents[2]
CLASSES = ("cats", "house_plants", "toys")


@pytest.fixture
def build(cfg, tmp_path):
    """Return build(what, KEY=value, ...): the dataset of tmp_path / what."""
    cfg.DATASET.NAME = "ImageFolder"

    def build(what="", **settings):
        cfg.SEED = settings.pop("SEED", cfg.SEED)
        cfg.DATASET.update(settings)
        cfg.DATASET.ROOT = str(tmp_path / what)
        return build_dataset(cfg)

    return build


def pictures(count, *parts):
    """Name images, class by class; parts come first where there are any."""
    return [f"{p}{c}/{n}.png" for p in ([f"{part}/" for part in parts] or [""]) for c in CLASSES for n in range(count)]


def paths(items, folder):
    return [Path(item.impath).relative_to(folder).as_posix() for item in items]


def test_class_folders_are_split_identically_for_every_seed(build, tmp_path, put):
    put(tmp_path, pictures(10))
    data = build()
    assert data.classnames == ["cats", "house plants", "toys"]
    assert (len(data.train_x), len(data.val), len(data.test)) == (15, 6, 9)
    parts = [set(paths(items, tmp_path)) for items in (data.train_x, data.val, data.test)]
    assert set.union(*parts) == set(pictures(10)) and sum(map(len, parts)) == 30

    other = build(SEED=2, NUM_SHOTS=2)
    assert paths(other.test, tmp_path) == paths(data.test, tmp_path)
    assert {Path(path).parent.name for path in paths(other.train_x, tmp_path)} == set(CLASSES)
    again = build(SEED=2)
    assert again.draw_hash == other.draw_hash, "the record of the draw is no class folder"
    assert build(SEED=3).draw_hash != other.draw_hash


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        (("train", "val", "test"), (30, 30, 30)),
        (("train", "test"), (30, 0, 30)),
        (("train", "val"), (30, 0, 30)),
        (("train",), (15, 6, 9)),
    ],
)
def test_existing_parts_are_used_unchanged(build, tmp_path, put, parts, sizes):
    put(tmp_path, pictures(10, *parts))
    data = build()
    assert (len(data.train_x), len(data.val), len(data.test)) == sizes
    if sizes[2] == 30:
        assert {path.split("/")[0] for path in paths(data.test, tmp_path)} == {parts[-1]}


def test_classes_may_be_named_train_and_test(build, tmp_path, put):
    put(tmp_path, [f"{vehicle}/{n}.jpg" for vehicle in ("bus", "train") for n in range(4)])
    assert build().classnames == ["bus", "train"]


def test_a_csv_file_is_a_dataset(build, tmp_path, put):
    put(tmp_path, pictures(4))
    rows = [f"{path},{path.split('/')[0]}" for path in pictures(4)]
    (tmp_path / "all.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["path,label", *rows, ""]).encode())
    data = build("all.csv", NUM_SHOTS=1)
    assert data.classnames == ["cats", "house plants", "toys"] and len(data.train_x) == 3 and len(data.test) == 3

    parts = ("train", "train", "val", "test")
    rows = [f"{row}, {parts[n % 4]}" for n, row in enumerate(reversed(rows))]
    (tmp_path / "parts.csv").write_text("\n".join(["path,label,split", *rows]))
    data = build("parts.csv")
    assert paths(data.test, tmp_path) == ["toys/0.png", "house_plants/0.png", "cats/0.png"]
    assert [item.label for item in data.test] == [2, 1, 0]
    assert paths(data.train_x, tmp_path) != paths(build("all.csv").train_x, tmp_path), "each table has its own records"


def test_classnames_txt_names_the_classes(build, tmp_path, put):
    put(tmp_path, pictures(4))
    (tmp_path / "classnames.txt").write_text("toys wooden toy\ncats  tabby cat\nhouse_plants cactus\n")
    assert build().classnames == ["tabby cat", "cactus", "wooden toy"]
    (tmp_path / "classnames.txt").write_text("toys wooden toy\n")
    with pytest.raises(UserError, match="names for 3 class folders, got none for 2, first: cats, house_plants"):
        build()


def test_files_that_are_not_images_are_ignored_with_a_note(build, tmp_path, put, capsys):
    put(tmp_path, [*pictures(4), "cats/Thumbs.db", "toys/notes.txt", "toys/.DS_Store", "cats/4.JPG"])
    data = build()
    assert len(data.train_x) + len(data.val) + len(data.test) == 13
    assert "2 files in " in (note := capsys.readouterr().out) and "cats/Thumbs.db, toys/notes.txt" in note


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "expected class folders, got 0 files"),
        (["a.png", "b.png"], "expected class folders, got 2 files"),
        ([*pictures(4), "empty/notes.txt"], "expected images in 4 class folders, got none in 1, first: empty"),
        (pictures(3), "class 'cats': expected enough images for 50% train, 20% val and 30% test, got 3"),
        (
            [*pictures(2, "train", "test"), "test/dogs/0.png"],
            "test: expected the class folders of train/, got 1 other",
        ),
        ([*pictures(2, "train"), "test/cats/0.png"], "test: expected images in 3 class folders, got none in 2"),
    ],
)
def test_an_unusable_folder_gets_a_clear_message(build, tmp_path, put, files, message):
    put(tmp_path, files)
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the header path,label or path,label,split and a line for each image, got '' and 0 lines"),
        ("file,class\na.png,x\n", "got 'file,class' and 1 lines"),
        ("path,label\n", "and 0 lines"),
        ("path,label\na.png\n", "image 1: expected path,label, got 'a.png'"),
        ("path,label\na.png,\n", "image 1: expected path,label, got 'a.png,'"),
        ("path,label,split\na.png,x,dev\n", r"\(split: train, val, test\), got 'a.png,x,dev'"),
        ("path,label\na.png,x\na.png,y\n", "expected each image once, got 1 repeated ones: a.png"),
        ("path,label\nb.png,x\n", "expected 1 image files, got 0; the first missing ones: .*b.png"),
        ("path,label,split\na.png,x,test\n", "expected training images, got none"),
        ('path,label\n"a.png,x\n', "expected a CSV file, got an error"),
        ("path,label\n\xff", "expected a CSV file, got an error"),
    ],
)
def test_an_unusable_csv_file_gets_a_clear_message(build, tmp_path, put, text, message):
    put(tmp_path, ["a.png"])
    (tmp_path / "table.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        build("table.csv")


def test_a_missing_root_is_named(build, cfg):
    with pytest.raises(UserError, match="got .*nowhere, which does not exist"):
        build("nowhere")
    cfg.DATASET.ROOT = ""
    with pytest.raises(UserError, match="DATASET.ROOT: expected a folder of class folders or a CSV file, got nothing"):
        build_dataset(cfg)


def test_rpo_learns_photographs_from_class_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    photos = tmp_path / "photos"
    runpy.run_path("scripts/example_photos.py")["main"](photos)

    def accuracy(method, *flags):
        run = ["--trainer", method, "--config-file", f"configs/trainers/{method}/tiny.yaml", "--seed", "1", *flags]
        run += ["--dataset-config-file", "configs/datasets/image_folder.yaml", "--output-dir", str(tmp_path / method)]
        run += ["DATASET.ROOT", str(photos), "DATASET.NUM_SHOTS", "8"]
        assert train.main(run) == 0
        metrics = json.loads((tmp_path / method / "results.json").read_text())["metrics"]
        assert metrics["n"] == len(list(photos.glob("test/*/*.png")))
        return metrics["accuracy"]

    assert accuracy("RPO") > accuracy("ZeroshotCLIP", "--eval-only") + 10
