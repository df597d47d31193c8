"""Oxford Pets, read from a small tree with the true layout."""

import importlib
import json
import random
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

import datasets
from basics import UserError
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, Datum, build_dataset
from datasets.oxford_pets import OxfordPets

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "fewshot_golden.json").read_text())
SPLIT = "split_zhou_OxfordPets.json"
BREEDS = ("Abyssinian", "american_bulldog", "Egyptian_Mau")  # cats are capitalized in the dataset
NUM_TRAINVAL, NUM_TEST = 12, 2  # of each breed


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg_default()
    cfg.SEED = 1
    cfg.VERBOSE = False
    cfg.DATASET.NAME = "OxfordPets"
    cfg.DATASET.ROOT = str(tmp_path)
    return cfg


@pytest.fixture
def folder(tmp_path):
    """Create oxford_pets/ as its archives unpack, without a split file; the images are empty files."""
    folder = tmp_path / "oxford_pets"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for part, numbers in (("trainval", range(1, NUM_TRAINVAL + 1)), ("test", range(101, 101 + NUM_TEST))):
        lines = []
        for breed_id, breed in enumerate(BREEDS, start=1):
            for number in numbers:
                (folder / "images" / f"{breed}_{number}.jpg").touch()
                lines.append(f"{breed}_{number} {breed_id} 1 {breed_id}\n")
        (folder / "annotations" / f"{part}.txt").write_text("".join(lines))
    return folder


def names(items):
    return [Path(item.impath).name for item in items]


def first_run_of_the_original(seed, shots):
    """Return names that the original draws when it makes the split and the draw in one run, from one stream."""
    rng = random.Random(seed)
    train, val = [], []
    for breed in BREEDS:
        images = [f"{breed}_{number}.jpg" for number in range(1, NUM_TRAINVAL + 1)]
        rng.shuffle(images)
        num_val = round(NUM_TRAINVAL * 0.2)
        val.append(images[:num_val])
        train.append(images[num_val:])
    drawn_train = [name for images in train for name in rng.sample(images, shots)]
    drawn_val = [name for images in val for name in rng.sample(images, min(shots, 4))]
    return drawn_train, drawn_val


def test_annotations_give_classes_labels_and_counts(cfg, folder):
    data = build_dataset(cfg)
    assert data.classnames == ["abyssinian", "american_bulldog", "egyptian_mau"]
    assert (len(data.train_x), len(data.val), len(data.test)) == (30, 6, 6)
    assert [item.label for item in data.test] == [0, 0, 1, 1, 2, 2]
    assert data.prompt == "a photo of a {}, a type of pet."
    trainval = set(names(data.train_x)) | set(names(data.val))
    assert len(trainval) == 36 and trainval.isdisjoint(names(data.test))


def test_the_sample_of_a_created_split_matches_the_original(cfg, folder):
    cfg.DATASET.NUM_SHOTS = 2
    data = build_dataset(cfg)
    train, val = first_run_of_the_original(seed=1, shots=2)
    assert names(data.train_x) == train and names(data.val) == val

    again = build_dataset(cfg)
    assert names(again.train_x) == train and names(again.val) == val
    assert again.draw_hash == data.draw_hash


def test_the_split_is_created_once_and_kept_for_other_seeds(cfg, folder):
    build_dataset(cfg)
    written = (folder / SPLIT).read_bytes()
    cfg.SEED = 2
    data = build_dataset(cfg)
    assert (folder / SPLIT).read_bytes() == written
    split = json.loads(written)
    assert names(data.train_x) == [path for path, _, _ in split["train"]]
    assert split["test"][0] == ["Abyssinian_101.jpg", 0, "abyssinian"]


def test_a_split_file_is_read_without_annotations(cfg, folder):
    for file in (folder / "annotations").iterdir():
        file.unlink()
    entry = ["Abyssinian_1.jpg", 0, "abyssinian"]
    (folder / SPLIT).write_text(json.dumps({"train": [entry], "val": [entry], "test": [entry]}))
    assert names(build_dataset(cfg).train_x) == ["Abyssinian_1.jpg"]


def test_a_split_that_cannot_be_saved_is_noted(cfg, folder, monkeypatch, capsys):
    def refuse(*args):
        raise UserError("cannot write it")

    monkeypatch.setattr("dassl.data.datasets.fewshot.save_split", refuse)
    build_dataset(cfg)
    assert "Note: cannot save the split" in capsys.readouterr().err


def test_missing_annotations_and_images_are_named(cfg, folder):
    (folder / "images" / "Abyssinian_3.jpg").unlink()
    with pytest.raises(UserError, match="expected 42 image files, got 41.*Abyssinian_3.jpg"):
        build_dataset(cfg)
    assert not (folder / SPLIT).exists()

    (folder / "annotations" / "test.txt").write_text("Abyssinian_1 one 1 1\n")
    with pytest.raises(UserError, match="test.txt, line 1: expected an image name and three numbers"):
        build_dataset(cfg)

    (folder / "annotations" / "trainval.txt").unlink()
    with pytest.raises(UserError, match=f"trainval.txt: .* OxfordPets needs it, or the split file {SPLIT} in"):
        build_dataset(cfg)


@pytest.fixture(scope="session")
def golden_folder(tmp_path_factory):
    """Create a DATA folder with the classes of the reference draws: ids 0 .. n - 1 in each part."""
    root = tmp_path_factory.mktemp("DATA")
    images = root / "oxford_pets" / "images"
    images.mkdir(parents=True)
    about = GOLDEN["_about"]
    sizes = {"train": about["class_sizes_train"], "val": about["class_sizes_val7"], "test": [2] * 7}
    split = defaultdict(list)
    for part, counts in sizes.items():
        for label, count in enumerate(counts):
            for _ in range(count):
                name = f"{part}_{len(split[part])}.jpg"
                (images / name).touch()
                split[part].append([name, label, f"class{label}"])
    (root / "oxford_pets" / SPLIT).write_text(json.dumps(split))
    return root


@pytest.mark.parametrize("key", GOLDEN["coop_oxford_pets"])
def test_samples_and_class_halves_match_the_original(cfg, golden_folder, key):
    seed, shots, subsample = key.split("_")
    cfg.SEED = int(seed.removeprefix("seed"))
    cfg.DATASET.ROOT = str(golden_folder)
    cfg.DATASET.NUM_SHOTS = int(shots.removeprefix("shots"))
    cfg.DATASET.SUBSAMPLE_CLASSES = subsample
    expected = GOLDEN["coop_oxford_pets"][key]

    data = build_dataset(cfg)

    for part, items in (("train", data.train_x), ("val", data.val), ("test", data.test)):
        assert [int(Path(item.impath).stem.split("_")[1]) for item in items] == expected[part]
        assert [item.label for item in items] == expected[f"{part}_labels"]
    assert data.classnames == expected["classnames"] and data.num_classes == expected["num_classes"]
    after = expected["next_draws_after"]
    assert data.rng.random() == after["random.random()"]
    assert data.rng.randrange(10**9) == after["random.randrange(10**9)"]


def test_dataset_files_of_the_family_find_their_helpers_on_the_class(tmp_path):
    (tmp_path / "a.jpg").touch()
    items = [Datum(str(tmp_path / "a.jpg"), label, classname="ab"[label]) for label in (0, 1)]
    base, new = OxfordPets.subsample_classes(items, items, subsample="base")
    assert len(base) == len(new) == 1
    train, val = OxfordPets.split_trainval(items * 5)
    assert (len(train), len(val)) == (8, 2)
    file = str(tmp_path / "split.json")
    OxfordPets.save_split(train, val, items, file, str(tmp_path))
    assert [len(part) for part in OxfordPets.read_split(file, str(tmp_path))] == [8, 2, 2]


def test_a_file_dropped_into_the_folder_registers_itself(tmp_path, monkeypatch):
    folder = tmp_path / "my_datasets"
    folder.mkdir()
    shutil.copy(datasets.__file__, folder)
    (folder / "dropped_in.py").write_text(
        "from dassl.data.datasets import DATASET_REGISTRY, FewShotDataset\n"
        "@DATASET_REGISTRY.register(force=True)\n"
        "class DroppedIn(FewShotDataset):\n"
        "    dataset_dir = 'dropped_in'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("my_datasets")
    assert "DroppedIn" in DATASET_REGISTRY.registered_names()


def test_the_shipped_config_names_the_dataset(cfg):
    cfg.DATASET.NAME = ""
    cfg.merge_from_file(Path(datasets.__file__).parents[1] / "configs" / "datasets" / "oxford_pets.yaml")
    assert DATASET_REGISTRY.get(cfg.DATASET.NAME) is OxfordPets
