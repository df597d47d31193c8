"""Class names that are folder names: what is translated, removed, and reported."""

import pytest

from dassl.data.datasets import class_names
from dassl.data.datasets.names import alike_names


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("red_fox", "red fox"),
        ("n01440764", "tench"),  # of the 1,000 of ILSVRC
        ("n02119789", "kit fox"),
        ("n00007846", "person"),  # of the other synsets
        ("n99999999", "n99999999"),
    ],
)
def test_synsets_are_translated_and_underscores_are_spaces(folder, name):
    assert class_names([folder], "classnames.txt") == {folder: name}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("12 - oak", "oak"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("737-200", "737-200"),
        ("7", "7"),
        ("3d_printer", "3d printer"),
    ],
)
def test_leading_numbers_are_removed_on_request(folder, name, capsys):
    assert class_names([folder], "classnames.txt", strip_numbers=True) == {folder: name}
    assert "start with a number" not in capsys.readouterr().err
    assert class_names([folder], "classnames.txt") == {folder: folder.replace("_", " ")}
    assert ("start with a number" in capsys.readouterr().err) == (name != folder.replace("_", " "))


def test_names_that_say_nothing_are_reported_with_the_file_that_names_them(capsys):
    class_names(["0", "class_7", "c3", "Label 12", "n99999999", "cat", "boeing 747", "x"], "photos/classnames.txt")
    err = capsys.readouterr().err
    assert "Note: 5 of 8 class names say nothing to CLIP, which reads them as words: 0, class 7, c3, ..." in err
    assert "Name the classes in photos/classnames.txt" in err
    class_names(["cat", "747-400"], "photos/classnames.txt")
    assert not capsys.readouterr().err


def test_alike_names_differ_in_case_punctuation_or_number():
    names = ["Cat", "cats", "dog", "T-shirt", "t shirt", "glass", "grass", "s", "bus", "bus stop", "7", "8"]
    assert alike_names(names) == [["Cat", "cats"], ["T-shirt", "t shirt"]]
