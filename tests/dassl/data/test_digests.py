"""Digests show whether two runs used the same images."""

import shutil
from types import SimpleNamespace

import pytest

from dassl.data import digests
from dassl.data.datasets import Datum
from dassl.data.digests import data_digests


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    for name in "abc":
        (tmp_path / "data" / name).write_bytes(name.encode() * 10)
    return tmp_path / "data"


def of(folder, train="ab", test="c", labels=(0, 1)):
    items = [Datum(str(folder / name), label) for name, label in zip(train, labels, strict=True)]
    tested = [Datum(str(folder / name), 0) for name in test]
    return data_digests(SimpleNamespace(dataset_dir=str(folder), train_x=items, train_u=None, val=None, test=tested))


def test_the_same_images_in_another_place_have_the_same_digests(folder, tmp_path):
    before = of(folder)
    shutil.move(folder, tmp_path / "moved")
    assert of(tmp_path / "moved") == before and before.keys() == {"train", "test"}


def test_replaced_contents_of_the_same_size_are_detected(folder):
    before = of(folder)
    (folder / "a").write_bytes(b"x" * 10)
    after = of(folder)
    assert after["train"] != before["train"] and after["test"] == before["test"]


def test_other_lists_and_labels_are_detected(folder):
    found = [of(folder), of(folder, train="ba"), of(folder, labels=(1, 0)), of(folder, train="ac")]
    assert len({each["train"] for each in found}) == 4
    assert of(folder, test="")["train"] == found[0]["train"] and "test" not in of(folder, test="")


def test_of_a_large_list_only_names_labels_and_sizes_count(folder, monkeypatch):
    monkeypatch.setattr(digests, "CONTENTS_LIMIT", 5)
    before = of(folder)
    (folder / "a").write_bytes(b"x" * 10)
    assert of(folder) == before
    (folder / "a").write_bytes(b"x" * 11)
    assert of(folder)["train"] != before["train"]
