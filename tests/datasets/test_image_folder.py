"""Your own photos: class folders with and without parts, CSV files, and a run of RPO on photographs."""

import json
import runpy
from pathlib import Path

import pytest
from PIL import Image

import train
from basics import UserError, cache_dir
from dassl.data.datasets import build_dataset
from dassl.utils import images

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


def test_a_csv_file_from_windows_and_columns_of_other_names_are_read(build, tmp_path, put):
    put(tmp_path, pictures(4))
    rows = [f"{path.replace('/', chr(92))};{path.split('/')[0]}" for path in pictures(4)]
    (tmp_path / "table.csv").write_text("\r\n".join(["where;what", *rows]), encoding="utf-16")
    data = build("table.csv", COLUMNS="where,what", HOLD_OUT=False)
    assert sorted(paths(data.train_x, tmp_path)) == sorted(pictures(4))


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
    assert "2 files in " in (note := capsys.readouterr().err) and "cats/Thumbs.db, toys/notes.txt" in note


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "expected class folders, got 0 files"),
        (["a.png", "b.png"], "expected class folders, got 2 files"),
        (["train/0.png", "train/1.png"], "train: expected class folders, got 2 images in none"),
        (["cats/notes.txt", "toys/notes.txt"], "expected images in 2 class folders, got none in 2, first: cats, toys"),
        (
            [*pictures(4), "dogs/0.HEIC"],
            r"got none in 1, first: dogs. To read .heic files, pip install 'promptlearn-clip\[heif\]'",
        ),
        ([*pictures(4, "train", "test"), "train/dogs/0.nef"], "first: train/dogs. To read .nef files, convert them"),
    ],
)
def test_an_unusable_folder_gets_a_clear_message(build, tmp_path, put, files, message, monkeypatch):
    monkeypatch.setitem(images.PACKAGES, "heif", "no_such_package")
    put(tmp_path, files)
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns such as path,label or path,label,split and a line for each image, got '' and 0 lines"),
        ("where,what\na.png,x\n", "got 'where,what' and 1 lines. .* DATASET.COLUMNS"),
        ("path,label\n", "and 0 lines"),
        ("path,label\na.png\n", "image 1: expected path,label, got 'a.png,'"),
        ("path,label\na.png,\n", "image 1: expected path,label, got 'a.png,'"),
        ("path,label,split\na.png,x,later\n", r"\(split: train, val, test\), got 'a.png,x,later'"),
        ("path,label,split\na.png,x,\n", r"\(split: train, val, test\), got 'a.png,x,'"),
        ("path,label\na.png,x\na.png,y\n", "expected each image once, got 1 repeated ones: a.png. Several classes"),
        (
            "path,label\na.png,cat;dog\n",
            "image 1: expected one class, got 'cat;dog'. Several classes for one image are",
        ),
        ("path,label\na.png,cat | dog\n", "image 1: expected one class, got 'cat | dog'"),
        ("path,label\nb.png,x\n", "expected 1 image files, got 0; the first missing ones: .*b.png"),
        ('path,label\n"a.png,x\n', "expected a CSV file, got an error"),
        ("PK\x03\x04\0\0\0", "expected a CSV file, got a binary one. Export the table as CSV"),
        ("\xff\xfep", "expected a CSV file, got an error"),
    ],
)
def test_an_unusable_csv_file_gets_a_clear_message(build, tmp_path, put, text, message):
    put(tmp_path, ["a.png"])
    (tmp_path / "table.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        build("table.csv")


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "valid", "test"), ("Train", "Validation", "TEST"), ("training", "dev", "testing")]
    + [("train_set", "val_images", "Test-Data"), ("train", "dev", "eval")],
)
def test_parts_have_their_common_names_in_any_case(build, tmp_path, put, train, val, test):
    put(tmp_path, pictures(2, train, val, test))
    data = build()
    found = [paths(items, tmp_path) for items in (data.train_x, data.val, data.test)]
    assert found == [pictures(2, part) for part in (train, val, test)] and data.classnames[1] == "house plants"


def test_parts_next_to_a_class_count_as_classes_with_a_note(build, tmp_path, put, capsys):
    put(tmp_path, [f"{top}/{n}.png" for top in ("train", "test", "more") for n in range(4)])
    assert build().classnames == ["more", "test", "train"]
    assert "Note: test, train count as classes in" in capsys.readouterr().err


def test_parts_may_be_inside_the_class_folders(build, tmp_path, put):
    put(tmp_path, [f"{c}/{part}/{n}.png" for c in CLASSES for part in ("train", "test") for n in range(2)])
    data = build()
    assert data.classnames == ["cats", "house plants", "toys"] and len(data.train_x) == len(data.test) == 6
    assert all("/test/" in path for path in paths(data.test, tmp_path))


def test_other_folders_next_to_the_classes_are_ignored_with_a_note(build, tmp_path, put, capsys):
    clutter = [
        "__MACOSX/cats/._0.png",
        ".ipynb_checkpoints/0.png",
        "annotations/0.xml",
        "lost+found/0.png",
        "README.md",
    ]
    put(tmp_path, [*pictures(4), *clutter])
    assert build().classnames == ["cats", "house plants", "toys"]
    assert "ignoring 4 folders" in (out := capsys.readouterr().err)
    assert "hold no images: .ipynb_checkpoints, __MACOSX, annotations, lost+found" in out


def test_an_empty_class_folder_is_refused_in_training_alone(build, tmp_path, put):
    put(tmp_path, pictures(2, "train", "test"))
    (tmp_path / "test" / "dogs").mkdir()
    assert build().num_classes == 3
    (tmp_path / "train" / "dogs").mkdir()
    with pytest.raises(UserError, match="expected images in 4 class folders, got none in 1, first: train/dogs"):
        build()


def test_the_level_of_the_classes_can_be_set_and_is_proposed(build, tmp_path, put, capsys):
    put(tmp_path, [f"{c}/{n}.png" for c in ("animals/cat", "animals/dog", "plants/oak") for n in range(4)])
    assert build().classnames == ["animals", "plants"]
    out = capsys.readouterr().err
    assert "such as animals/cat. If these are the classes (3: cat, dog, oak), set DATASET.CLASS_LEVEL 2" in out
    for level in (2, -1):
        assert build(CLASS_LEVEL=level).classnames == ["cat", "dog", "oak"]
    with pytest.raises(UserError, match="expected class folders, got 12 images in none.*DATASET.CLASS_LEVEL"):
        build(CLASS_LEVEL=3)
    with pytest.raises(UserError, match="DATASET.CLASS_LEVEL: expected 1, 2, ..., or -1, got 0"):
        build(CLASS_LEVEL=0)


def test_images_anywhere_below_a_class_folder_count(build, tmp_path, put):
    put(tmp_path, [*pictures(4), "cats/2023/may/x.jpg", "cats/2024/y.jpg"])
    (tmp_path / "cats" / "again").symlink_to(tmp_path / "cats")  # leads back
    data = build(HOLD_OUT=False)
    assert len(data.train_x) == 14 and data.num_classes == 3
    assert "cats/2023/may/x.jpg" in paths(data.train_x, tmp_path)


def test_classes_of_any_size_can_be_trained_on(build, tmp_path, put, capsys):
    put(tmp_path, ["a/0.png", *(f"b/{n}.png" for n in range(2)), *(f"c/{n}.png" for n in range(3)), *pictures(4)])
    data = build()
    sizes = [
        [sum(i.label == label for i in items) for label in range(3)] for items in (data.train_x, data.val, data.test)
    ]
    assert sizes == [[1, 1, 2], [0, 0, 0], [0, 1, 1]]
    out = capsys.readouterr().err
    assert (
        "3 classes have too few images for that: at least half are train, the rest is test, first: a (1), b (2)" in out
    )
    assert "Held out of training: 3 val and 5 test images of 18" in out

    assert len(build(HOLD_OUT=False).train_x) == 18 and not build().test


@pytest.mark.parametrize("part", ["test", "val"])
def test_images_for_testing_alone_are_evaluated(build, tmp_path, put, part):
    put(tmp_path, pictures(2, part))
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", f"{part}/cats/0.png,cat,{part}"]))
    for what, count in (("", 6), ("table.csv", 1)):
        data = build(what, NUM_SHOTS=1)
        assert data.test_only and len(data.test) == len(data.train_x) == count and not data.val


def test_test_classes_may_differ_from_the_training_classes(build, tmp_path, put, capsys):
    put(tmp_path, [*pictures(2, "train"), "test/dogs/0.png", "test/cats/0.png"])
    data = build(NUM_SHOTS=1)
    assert data.classnames == ["cats", "dogs", "house plants", "toys"]
    assert [(item.label, item.classname) for item in data.test] == [(0, "cats"), (1, "dogs")]
    assert {item.label for item in data.train_x} == {0, 2, 3}
    assert "Note: 1 classes have no training images: dogs" in capsys.readouterr().err
    assert build(SUBSAMPLE_CLASSES="base").classnames == ["cats", "dogs"]


def test_broken_links_are_found_first(build, tmp_path, put):
    put(tmp_path, pictures(4))
    (tmp_path / "cats" / "linked.png").symlink_to(tmp_path / "toys" / "0.png")
    assert build()
    (tmp_path / "toys" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"got 13; the first missing ones: .*lost.png \(a broken link\)"):
        build()


def test_equal_images_and_alike_names_are_reported(build, tmp_path, put, capsys):
    put(tmp_path, pictures(2, "train", "test"))
    for name in ("train/cats/0", "train/cats/1", "test/toys/0"):
        (tmp_path / f"{name}.png").write_bytes(b"equal")
    (tmp_path / "train/Cat").mkdir()
    (tmp_path / "train/Cat/0.png").write_bytes(b"other")
    build()
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Note")]
    assert "train, too, which inflates the results: test/toys/0.png = train/cats/0.png" in notes[0]
    assert notes[1] == "Note: 1 images repeat another one of their list: train/cats/1.png = train/cats/0.png"
    assert notes[2] == "Note: 1 images have a copy in another class: test/toys/0.png = train/cats/0.png"
    assert notes[3] == "Note: class names that are alike: 'Cat', 'cats'"


def test_synset_folders_are_translated_and_opaque_names_reported(build, tmp_path, put, capsys):
    names = ("001.Black_footed_Albatross", "7", "n01440764", "n02085620-Chihuahua")
    put(tmp_path, [f"{name}/{n}.png" for name in names for n in range(4)])
    assert build().classnames == ["001.Black footed Albatross", "7", "tench", "n02085620-Chihuahua"]
    out = capsys.readouterr().err
    assert "translated 1 ImageNet synsets: n01440764 is tench" in out
    assert "1 of 4 class names say nothing to CLIP, which reads them as words: 7. Name the classes in" in out
    assert "2 of 4 class names start with a number" in out and "set DATASET.STRIP_NUMBERS True" in out
    assert build(STRIP_NUMBERS=True).classnames == ["Black footed Albatross", "7", "tench", "Chihuahua"]
    assert "start with a number" not in capsys.readouterr().err


def test_changed_images_are_explained_and_can_be_sampled_again(build, tmp_path, put, capsys):
    put(tmp_path, pictures(6))
    first, other = build(NUM_SHOTS=2), build(SEED=2)
    gone = Path(build(SEED=1).train_x[0].impath)
    gone.rename(gone.with_name("renamed.png"))
    with pytest.raises(UserError, match=r"are no longer train or val images, first: .*DATASET.REDRAW True"):
        build()
    again = build(REDRAW=True)
    assert again.draw_hash != first.draw_hash and build(REDRAW=False).draw_hash == again.draw_hash
    (folder,) = cache_dir("datasets").glob("*/split_fewshot")
    records = {path.name: json.loads(path.read_text()) for path in folder.iterdir()}
    assert set(records) == {"shot_2-seed_1.json", "shot_2-seed_1.old1.json", "shot_2-seed_2.json"}
    assert len(records["shot_2-seed_1.old1.json"]["train"]) == len(other.train_x)


def test_other_images_at_the_same_path_are_another_dataset(build, tmp_path, put, capsys):
    put(tmp_path / "photos", pictures(4))
    build("photos", NUM_SHOTS=2)
    (tmp_path / "photos").rename(tmp_path / "old")
    put(tmp_path / "photos", [f"{c}/{n}.png" for c in ("cat", "dog") for n in range(4)])
    assert len(build("photos").train_x) == 4
    assert "recorded a new sample, and kept the old one" in capsys.readouterr().err


def test_a_record_of_an_earlier_version_in_the_folder_counts(build, tmp_path, put):
    put(tmp_path / "photos", pictures(4))
    first = build("photos", NUM_SHOTS=2)
    (record,) = cache_dir("datasets").glob("*/split_fewshot/*.json")
    beside = tmp_path / "photos" / "split_fewshot" / record.name
    beside.parent.mkdir()
    record.rename(beside)
    assert build("photos").draw_hash == first.draw_hash and not record.exists()
    beside.write_text(beside.read_text().replace("cats/", "dogs/"))
    with pytest.raises(UserError, match="are no longer train or val images"):
        build("photos")
    written = beside.read_bytes()
    assert build("photos", REDRAW=True).draw_hash == first.draw_hash and beside.read_bytes() == written


def test_a_split_file_is_a_dataset(build, tmp_path, put):
    put(tmp_path, ["a.png", "b.png", "c.png"])
    split = {"train": [["a.png", 0, "ant"], ["b.png", 1, "bee"]], "test": [["c.png", 2, "cat"]]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    data = build("split.json")
    assert data.classnames == ["ant", "bee", "cat"] and paths(data.test, tmp_path) == ["c.png"] and not data.val


def test_a_missing_root_is_named(build, cfg):
    with pytest.raises(UserError, match="got .*nowhere, which does not exist"):
        build("nowhere")
    cfg.DATASET.ROOT = ""
    with pytest.raises(UserError, match="DATASET.ROOT: expected a folder of class folders or a CSV file, got nothing"):
        build_dataset(cfg)


def run(tmp_path, method, *flags):
    """Train or test a method with the built-in CLIP on tmp_path / "photos"; return the exit status."""
    run = ["--trainer", method, "--config-file", f"configs/trainers/{method}/tiny.yaml", "--seed", "1", *flags]
    run += ["--dataset-config-file", "configs/datasets/image_folder.yaml", "--output-dir", str(tmp_path / method)]
    return train.main([*run, "DATASET.ROOT", str(tmp_path / "photos")])


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Return a folder in which to make `photo`s; the current folder is the checkout."""
    monkeypatch.chdir(ROOT)

    def photo(name):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((48, 48), 50).save(path)

    return photo


def test_a_run_may_hold_out_nothing(tmp_path, photos):
    for name in ("cat/0.png", "dog/0.png"):
        photos(name)
    assert run(tmp_path, "RPO", "OPTIM.MAX_EPOCH", "1", "DATASET.HOLD_OUT", "False") == 0
    assert json.loads((tmp_path / "RPO" / "results.json").read_text())["metrics"] is None


def test_untrained_classes_are_evaluated_where_the_method_knows_them_by_name(tmp_path, photos, capsys):
    for name in ("train/cat/0.png", "train/dog/0.png", "test/dog/1.png", "test/fox/0.png"):
        photos(name)
    assert run(tmp_path, "RPO", "OPTIM.MAX_EPOCH", "1") == 0
    metrics = json.loads((tmp_path / "RPO" / "results.json").read_text())["metrics"]
    assert set(metrics["per_class"]) == {"dog", "fox"}
    assert run(tmp_path, "VPT", "OPTIM.MAX_EPOCH", "1", "TRAINER.VPT.HEAD", "linear") == 2
    assert "can classify 1 classes without training images (fox)" in capsys.readouterr().err


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
