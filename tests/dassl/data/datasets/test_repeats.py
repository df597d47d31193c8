"""Equal images: found by content, and only where they matter."""

import pytest

from dassl.data.datasets import Datum, doubts, repeats


@pytest.fixture
def make(tmp_path):
    """Return make({name: content}): the images of the files, by name; "cat3" is of the class cat."""

    def make(contents):
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        return {name: Datum(str(tmp_path / name), classname=name.rstrip("0123456789")) for name in contents}

    return make


def test_files_are_equal_if_all_of_their_content_is(make, tmp_path):
    long = bytes(2 * repeats.START)
    files = {"a": b"12", "b": b"12", "c": b"21", "d": long, "e": long, "f": long[:-1] + b"x", "g": b"", "h": b""}
    paths = [item.impath for item in make(files).values()]
    assert repeats.equal_files(paths) == [paths[0:2], paths[3:5]]
    assert repeats.equal_files([*paths[:1], str(tmp_path / "missing")]) == []
    assert repeats.equal_files([str(tmp_path), *paths[:2], str(tmp_path)]) == [paths[:2]]  # what cannot be read


def test_only_files_of_equal_size_are_read(make, monkeypatch):
    read = []
    monkeypatch.setattr(repeats, "_start", lambda path: read.append(path) or path)
    paths = [item.impath for item in make({"a": b"1", "b": b"2", "c": b"333"}).values()]
    assert repeats.equal_files(paths) == [] and read == paths[:2]


def test_each_kind_of_doubt_is_one_line_with_examples(make, tmp_path):
    found = make({"cat1": b"1", "cat2": b"1", "cat3": b"1", "cat4": b"4", "dog1": b"4", "dog2": b"5"})
    parts = {"train": [found[name] for name in ("cat1", "cat2", "dog1")], "test": [found["cat3"], found["cat4"]]}
    assert doubts(parts, ["cat", "Dog", "dogs"], str(tmp_path)) == [
        "2 images of val or test are in train, too, which inflates the results: cat3 = cat1; cat4 = dog1",
        "1 images repeat another one of their list: cat2 = cat1",
        "1 images have a copy in another class: cat4 = dog1",
        "class names that are alike: 'Dog', 'dogs'",
    ]


def test_an_image_in_two_lists_is_not_its_own_copy(make, tmp_path):
    found = list(make({"cat1": b"1", "dog1": b"2"}).values())
    assert doubts({"train": found, "val": [], "test": found}, ["cat", "dog"], str(tmp_path)) == []
