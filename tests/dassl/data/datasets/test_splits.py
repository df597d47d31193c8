"""Splits: read, saved, made, and halved into base and new classes."""

import json
import random

import pytest

from basics import UserError
from dassl.data.datasets import (
    Datum,
    read_split,
    save_split,
    split_by_class,
    split_trainval,
    subsample_classes,
)


def items(labels):
    return [Datum(f"{n}.jpg", label, classname=f"class {label}") for n, label in enumerate(labels)]


def summary(part):
    return [(item.impath, item.label, item.classname) for item in part]


def test_a_saved_split_reads_back_and_has_relative_paths(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    paths = [folder / "a.jpg", folder / "sub" / "b.jpg", folder / "c.jpg"]
    for path in paths:
        path.touch()
    parts = [[Datum(str(path), n, classname=f"class {n}")] for n, path in enumerate(paths)]
    file = str(tmp_path / "split.json")

    save_split(*parts, file, str(folder))

    assert json.loads((tmp_path / "split.json").read_text())["val"] == [["sub/b.jpg", 1, "class 1"]]
    assert [summary(part) for part in read_split(file, str(folder))] == [summary(part) for part in parts]


def entries_of_each_kind():
    """Yield (a split of two classes in another layout, part of the note about it)."""
    train, test = [["a.jpg", 0, "ant"], ["b.jpg", 1, "bee"]], [["c.jpg", 1, "bee"]]
    yield {"train": train, "test": test}, "has no val"
    yield {"Training": train, "valid": [], "testing": test}, ""
    yield {"train": [["a.jpg", 1, "ant"], ["b.jpg", 2, "bee"]], "val": [], "test": [["c.jpg", 2, "bee"]]}, "from 1"
    yield {"train": train, "val": [], "test": [["c.jpg", 0, "bee"]]}, "numbering them by their names"
    for path, label, name in (("path", "label", "classname"), ("file_name", "class_id", "class")):
        keys = (path, label, name)
        dicts = [[dict(zip(keys, entry, strict=True)) for entry in part] for part in (train, test)]
        yield {"train": dicts[0], "val": [], "test": dicts[1]}, ""


@pytest.mark.parametrize(("split", "note"), [*entries_of_each_kind()])
def test_other_layouts_of_a_split_are_read_as_the_same_images(tmp_path, split, note, capsys):
    for name in "abc":
        (tmp_path / f"{name}.jpg").touch()
    (tmp_path / "split.json").write_text(json.dumps(split))
    parts = [summary(part) for part in read_split(str(tmp_path / "split.json"), str(tmp_path))]
    a, b, c = (str(tmp_path / f"{name}.jpg") for name in "abc")
    assert parts == [[(a, 0, "ant"), (b, 1, "bee")], [], [(c, 1, "bee")]]
    err = capsys.readouterr().err
    assert note in err and ("Note" in err) == bool(note)


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"train": [], "val": []}', '{"train": [["a.jpg", 0]], "val": [], "test": []}', "[" * 100_000),
        *(
            f'{{"train": [{entry}], "val": [], "test": []}}'
            for entry in (
                *('["a.jpg", 0.9, "cat"]', '["a.jpg", true, "cat"]', '["a.jpg", null, "cat"]', '["a.jpg", "x", "cat"]'),
                *('["a.jpg", 0, ""]', '["a.jpg", 0, " "]', '["a.jpg", 0, ["cat"]]', '["a.jpg", 0, "\\ud800"]'),
                *('{"path": "a.jpg", "label": 0}', '{"label": 0, "classname": "cat"}', "{}"),
                *('["", 0, "cat"]', '["a\\u0000", 0, "cat"]', '[3, 0, "cat"]', '"abc"', "3"),
            )
        ),
    ],
)
def test_a_damaged_split_is_named(tmp_path, text):
    file = tmp_path / "split.json"
    file.write_text(text)
    with pytest.raises(UserError, match="split.json.*(expected a split file|valid JSON)"):
        read_split(str(file), str(tmp_path))


def test_a_split_that_names_absent_files_is_refused(tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": [["a.jpg", 0, "cat"]], "val": [], "test": [["b.jpg", 0, "cat"]]}))
    (tmp_path / "b.jpg").touch()
    with pytest.raises(UserError, match="split.json: expected 2 image files, got 1.*a.jpg"):
        read_split(str(file), str(tmp_path))


def test_a_fifth_of_every_class_becomes_val():
    train, val = split_trainval(items([0] * 10 + [1] * 8), rng=random.Random(1))
    assert [item.label for item in val] == [0, 0, 1, 1]
    assert sorted(summary(train + val)) == sorted(summary(items([0] * 10 + [1] * 8)))


def test_a_class_too_small_for_a_val_image_is_refused():
    with pytest.raises(UserError, match="'class 1': expected enough images for 20% val, got 2"):
        split_trainval(items([0] * 10 + [1] * 2))


def test_every_class_is_split_50_20_30():
    parts = split_by_class(items([1] * 10 + [0] * 5), rng=random.Random(1))
    assert [[item.label for item in part] for part in parts] == [[1] * 5 + [0] * 2, [1] * 2 + [0], [1] * 3 + [0] * 2]
    assert sorted(summary(sum(parts, []))) == sorted(summary(items([1] * 10 + [0] * 5)))


def test_a_class_too_small_for_three_parts_is_refused():
    assert [len(part) for part in split_by_class(items([0] * 4))] == [2, 1, 1]
    with pytest.raises(UserError, match="'class 1': expected enough images for 50% train, 20% val and 30% test, got 3"):
        split_by_class(items([0] * 4 + [1] * 3))


@pytest.mark.parametrize(("num_classes", "num_base"), [(1, 1), (2, 1), (5, 3), (7, 4), (10, 5)])
def test_base_is_the_first_half_rounded_up_and_new_is_relabeled(num_classes, num_base):
    train = items([*reversed(range(num_classes)), *range(num_classes)])
    test = items(range(num_classes))

    base, base_test = subsample_classes(train, test, subsample="base")
    new, new_test = subsample_classes(train, test, subsample="new")

    assert [item.label for item in base_test] == list(range(num_base))
    assert [item.classname for item in base_test] == [f"class {n}" for n in range(num_base)]
    assert [item.label for item in new_test] == list(range(num_classes - num_base))
    assert [item.classname for item in new_test] == [f"class {n}" for n in range(num_base, num_classes)]
    assert [item.impath for item in base] == [item.impath for item in train if item.label < num_base]
    assert len(base) + len(new) == len(train)


def test_all_classes_return_the_lists_unchanged():
    train, test = items([0, 1]), items([1])
    kept = subsample_classes(train, test, subsample="all")
    assert kept[0] is train and kept[1] is test


def test_an_unknown_subsample_is_refused():
    with pytest.raises(UserError, match="all, base, new, got 'old'"):
        subsample_classes(items([0]), subsample="old")
