"""Class folders: which folders and files count, in which order, and what is reported about the rest."""

import os
from contextlib import nullcontext

import pytest

from basics import UserError
from dassl.data.datasets import Datum, check_images, class_folders, read_class_folders


@pytest.fixture
def folder(tmp_path):
    """Create two classes, and what must not become one."""
    for name in ("b/2.jpg", "b/10.PNG", "b/.hidden.jpg", "a/x.jpeg", ".git/a.jpg", "README.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return str(tmp_path)


def found(items, folder):
    return [(os.path.relpath(item.impath, folder), item.label, item.classname) for item in items]


def test_folders_and_images_are_sorted_on_every_file_system(folder, monkeypatch):
    scan = os.scandir
    backwards = lambda path: nullcontext(sorted(scan(path), key=lambda entry: entry.name, reverse=True))  # noqa: E731
    monkeypatch.setattr("os.scandir", backwards)
    assert class_folders(folder) == ["a", "b"]
    assert found(read_class_folders(folder), folder) == [
        ("a/x.jpeg", 0, "a"),
        ("b/10.PNG", 1, "b"),
        ("b/2.jpg", 1, "b"),
    ]


def test_classes_may_be_chosen_ordered_and_named(folder):
    items = read_class_folders(folder, {"b": "big", "a": "small"})
    assert found(items, folder) == [("b/10.PNG", 0, "big"), ("b/2.jpg", 0, "big"), ("a/x.jpeg", 1, "small")]
    assert len(read_class_folders(folder, {"b": "big"})) == 2


def test_linked_folders_are_class_folders(folder, tmp_path_factory):
    os.symlink(tmp_path_factory.mktemp("elsewhere"), os.path.join(folder, "c"))
    assert class_folders(folder) == ["a", "b", "c"]


def test_classes_without_images_are_counted_and_named(folder):
    with pytest.raises(UserError, match="expected images in 3 class folders, got none in 2, first: c, d.$"):
        read_class_folders(folder, {"a": "a", "c": "c", "d": "d"})
    with pytest.raises(UserError, match="expected class folders, got 1 files"):
        class_folders(os.path.join(folder, "a"))
    with pytest.raises(UserError, match="nowhere: expected a folder of class folders, got none"):
        class_folders(os.path.join(folder, "nowhere"))


@pytest.mark.parametrize(
    "read", [class_folders, read_class_folders, lambda folder: check_images([Datum(f"{folder}/a.jpg")], "the split")]
)
def test_a_folder_that_cannot_be_listed_is_named(folder, monkeypatch, read):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UserError, match=f"{folder}: expected a readable folder, got an error: Permission denied"):
        read(folder)


def test_other_files_are_reported(folder, capsys):
    open(os.path.join(folder, "b", "notes.txt"), "w").close()
    assert len(read_class_folders(folder)) == 3
    assert f"Note: skipped 1 files in {folder} that are no images: b/notes.txt" in capsys.readouterr().err
