"""Datum, the checks of a dataset's lists, and few-shot samples, which equal the CoOp family's."""

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from basics import UserError
from dassl.data.datasets import DatasetBase, Datum, check_images, sample_fewshot
from dassl.data.datasets.base_dataset import check_duplicates
from dassl.utils import set_random_seed

GOLDEN = json.loads((Path(__file__).parents[3] / "data" / "fewshot_golden.json").read_text())
SIZES = {part: GOLDEN["_about"][f"class_sizes_{part}"] for part in ("train", "val4", "val7")}
KEYS = list(GOLDEN["main_val4"])  # seed1_shots1, ...


def items(sizes):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    return [Datum(str(number), label, classname=f"class{label}") for number, label in enumerate(labels)]


def ids(sampled):
    return [int(item.impath) for item in sampled]


def seed_and_shots(key):
    seed, shots = key.split("_")
    return int(seed.removeprefix("seed")), int(shots.removeprefix("shots"))


def assert_next_draws(expected, rng):
    """Check that the next numbers of all streams are those after the original's sampling."""
    assert rng.random() == expected["random.random()"]
    assert rng.randrange(10**9) == expected["random.randrange(10**9)"]
    assert np.random.rand() == expected["numpy.random.rand()"]
    assert torch.rand(1).item() == expected["torch.rand(1)"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scenario", ["main_val4", "main_val7", "interleaved"])
def test_a_sample_from_its_own_stream_equals_the_original(scenario, key):
    seed, shots = seed_and_shots(key)
    expected = GOLDEN[scenario][key]
    train = items(SIZES["train"])
    if scenario == "interleaved":
        train = [train[number] for number in GOLDEN["interleaved_input_order"]]
    val = items(SIZES["val4" if scenario == "main_val4" else "val7"])

    rng = random.Random(seed)
    drawn_train = sample_fewshot(train, shots, rng)
    drawn_val = sample_fewshot(val, min(shots, 4), rng)

    assert ids(drawn_train) == expected["train"]
    assert ids(drawn_val) == expected["val"]
    assert [item.label for item in drawn_train] == expected["train_labels"]
    assert [item.label for item in drawn_val] == expected["val_labels"]
    set_random_seed(seed)
    assert_next_draws(expected["next_draws_after"], rng)


@pytest.mark.parametrize("key", KEYS)
def test_the_method_samples_from_the_global_stream_like_the_original(key, capsys):
    seed, shots = seed_and_shots(key)
    dataset = DatasetBase.__new__(DatasetBase)  # the family's dataset classes sample before super().__init__
    expected = GOLDEN["main_val7"][key]

    set_random_seed(seed)
    train = dataset.generate_fewshot_dataset(items(SIZES["train"]), num_shots=shots)
    val = dataset.generate_fewshot_dataset(items(SIZES["val7"]), num_shots=min(shots, 4))

    assert ids(train) == expected["train"] and ids(val) == expected["val"]
    assert capsys.readouterr().out.splitlines() == expected["printed"]
    assert_next_draws(expected["next_draws_after"], random)


@pytest.mark.parametrize("key", KEYS)
def test_repeat_fills_small_classes_as_the_original_does(key):
    seed, shots = seed_and_shots(key)
    dataset = DatasetBase.__new__(DatasetBase)
    set_random_seed(seed)
    sampled = dataset.generate_fewshot_dataset(items(SIZES["train"]), num_shots=shots, repeat=True)
    assert ids(sampled) == GOLDEN["repeat"][key]["train"]
    assert_next_draws(GOLDEN["repeat"][key]["next_draws_after"], random)


@pytest.mark.parametrize("key", KEYS)
def test_two_sources_in_one_call_are_sampled_like_the_original(key):
    seed, shots = seed_and_shots(key)
    dataset = DatasetBase.__new__(DatasetBase)
    expected = GOLDEN["two_sources_one_call"][key]
    set_random_seed(seed)
    sampled = dataset.generate_fewshot_dataset(items(SIZES["train"]), items(SIZES["val4"]), num_shots=shots)
    assert type(sampled).__name__ == expected["type"]
    assert [ids(part) for part in sampled] == [expected["train"], expected["val"]]
    assert_next_draws(expected["next_draws_after"], random)


def test_below_one_shot_the_sources_are_unchanged():
    dataset = DatasetBase.__new__(DatasetBase)
    one, other = items([2]), items([3])
    state = random.getstate()
    assert dataset.generate_fewshot_dataset(one, num_shots=-1) is one
    several = dataset.generate_fewshot_dataset(one, other, num_shots=0)
    assert type(several).__name__ == GOLDEN["no_fewshot"]["several_type"]
    assert several[0] is one and several[1] is other
    assert random.getstate() == state


@pytest.fixture
def files(tmp_path):
    """Create six empty files in two folders."""
    paths = [tmp_path / folder / f"{n}.jpg" for folder in ("a", "b") for n in range(3)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return [str(path) for path in paths]


def test_a_dataset_knows_its_classes(files):
    labels = (2, 0, 1, 1, 0, 2)
    train = [Datum(path, label, classname=f"name {label}") for path, label in zip(files, labels, strict=True)]
    data = DatasetBase(train_x=train, test=train[:1])
    assert data.num_classes == 3
    assert data.classnames == ["name 0", "name 1", "name 2"]
    assert data.lab2cname == {0: "name 0", 1: "name 1", 2: "name 2"}
    assert data.val is None and data.train_u is None
    assert list(data.split_dataset_by_label(train)) == [2, 0, 1]


def test_a_datum_keeps_the_attribute_names_of_the_family():
    datum = Datum("x.png", 3, 1, "cat")
    assert (datum._impath, datum._label, datum._domain, datum._classname) == ("x.png", 3, 1, "cat")
    datum.caption = "a cat"  # as a user's own dataset may do
    copied = pickle.loads(pickle.dumps(datum))
    assert (copied.impath, copied.label, copied.classname, copied.caption) == ("x.png", 3, "cat", "a cat")
    with pytest.raises(UserError, match="impath to be a str"):
        Datum(Path("x.png"))


def test_missing_images_are_counted_and_the_first_three_named(files, tmp_path):
    absent = [str(tmp_path / folder / f"{n}.jpg") for folder in ("a", "nowhere") for n in (7, 8)]
    with pytest.raises(UserError) as error:
        check_images([Datum(path) for path in files + absent], "the split")
    message = str(error.value)
    assert "the split: expected 10 image files, got 6" in message
    assert ", ".join(absent[:3]) in message and absent[3] not in message


def test_each_folder_is_listed_once_to_find_all_images(files, monkeypatch):
    def no_stat(path):
        raise AssertionError(f"a single file was looked up: {path}")

    monkeypatch.setattr("os.path.isfile", no_stat)
    check_images([Datum(path) for path in files], "the split")


@pytest.mark.parametrize(
    ("labels", "test_labels", "expected"),
    [
        ([], [], "expected training images, got none"),
        ([0, 2], [0], r"from 0 to 2 without gaps.*first classes without a training image: 1"),
        ([0, 1], [0, 2], r"expected val and test labels from 0 to 1, .* got \[2\]"),
        ([0, 10**15], [0], "from 0 to 1000000000000000 without gaps"),
        ([-1, 0], [0], "from -1 to 0"),
    ],
)
def test_labels_that_cannot_be_classes_are_refused(files, labels, test_labels, expected):
    train = [Datum(files[0], label, classname=str(label)) for label in labels]
    test = [Datum(files[1], label, classname=str(label)) for label in test_labels]
    with pytest.raises(UserError, match=expected):
        DatasetBase(train_x=train, test=test)


def test_one_label_with_two_names_is_refused(files):
    with pytest.raises(UserError, match="expected one class name for label 0, got cat, dog"):
        DatasetBase(train_x=[Datum(files[0], 0, classname="dog"), Datum(files[1], 0, classname="cat")])


def test_an_image_with_two_labels_is_refused(files):
    train = [Datum(files[0], 0, classname="cat"), Datum(files[0], 1, classname="dog")]
    with pytest.raises(UserError, match="expected one label for .*0.jpg, got 0 and 1"):
        check_duplicates(train, [], "Pets")


def test_images_in_train_and_test_and_shared_names_are_reported(files, capsys):
    train = [Datum(path, label, classname="crane") for label, path in enumerate(files[:3])]
    check_duplicates(train, train[1:2], "Birds")
    noted = capsys.readouterr().err.splitlines()
    assert noted[0].startswith("Note: 1 images are in both train and test") and files[1] in noted[0]
    expected = "Note: 1 names are shared by several classes, whose texts are equal: crane. Give these classes "
    assert noted[1] == f"{expected}different names."
    check_duplicates([Datum(files[0], 0, classname="cat")], [Datum(files[1], 0, classname="cat")], "Pets")
    assert not capsys.readouterr().err
