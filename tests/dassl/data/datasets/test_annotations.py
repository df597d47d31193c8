"""Annotation files: lines of text, MATLAB variables and the names of class folders."""

import numpy as np
import pytest
from scipy.io import savemat

from basics import MissingFile, UserError
from dassl.data.datasets import name_classes, read_annotations, read_classnames, read_mat


def test_each_line_is_parsed_and_empty_ones_are_skipped(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_bytes("1\r\n\n  2 \n３\n".encode())
    assert read_annotations(str(path), int, "a number") == [1, 2, 3]


@pytest.mark.parametrize("parse", [int, {"1": 1}.__getitem__])
def test_a_line_that_is_not_as_expected_is_shown_with_its_number(tmp_path, parse):
    path = tmp_path / "numbers.txt"
    path.write_text("1\n\none\n")
    with pytest.raises(UserError, match="numbers.txt, line 3: expected a number, got 'one'"):
        read_annotations(str(path), parse, "a number")


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(MissingFile, match="absent.txt: expected a file"):
        read_annotations(str(tmp_path / "absent.txt"), str, "a word")
    with pytest.raises(MissingFile, match="absent.mat: expected a file"):
        read_mat(str(tmp_path / "absent.mat"), "labels", int, "a number")
    with pytest.raises(UserError, match="expected a text file in UTF-8"):
        read_annotations(str(tmp_path), str, "a word")


@pytest.mark.parametrize("labels", [[4], [[1, 2, 3]], [[1], [2]]])
def test_a_variable_is_a_vector_whatever_its_shape(tmp_path, labels):
    path = str(tmp_path / "labels.mat")
    savemat(path, {"labels": np.array(labels, dtype=np.uint8), "other": "text"})
    assert read_mat(path, "labels", int, "a number") == np.ravel(labels).tolist()
    with pytest.raises(UserError, match="element 1 of other: expected a number, got .*'text'"):
        read_mat(path, "other", int, "a number")


def test_a_new_matlab_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "labels.mat"  # version 7.3 is HDF5 after a header of 512 bytes
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM".ljust(388, b"\x00") + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UserError, match="labels.mat: expected a MATLAB file"):
        read_mat(str(path), "labels", int, "a number")


def test_a_file_on_which_the_reader_itself_crashes_is_refused_in_one_line(tmp_path):
    path = tmp_path / "cars.mat"
    records = np.array([[(np.uint8(3), "00001.jpg")]], dtype=[("class", object), ("fname", object)])
    savemat(path, {"annotations": records})
    real, says_complex = b"\x06\0\0\0\x08\0\0\0\x09\0", b"\x06\0\0\0\x08\0\0\0\x09\x08"
    assert path.read_bytes().count(real) == 1
    path.write_bytes(path.read_bytes().replace(real, says_complex))  # the imaginary part is not there
    with pytest.raises(UserError, match="cars.mat: expected a MATLAB file, got .*. Download it again"):
        read_mat(str(path), "annotations", dict, "a record")


def test_class_names_keep_their_spaces_and_their_order(tmp_path):
    path = tmp_path / "classnames.txt"
    path.write_text("n2 great white shark\nn1 tench\n")
    assert list(read_classnames(str(path)).items()) == [("n2", "great white shark"), ("n1", "tench")]
    assert list(name_classes(["n1", "n2"], str(path)).items()) == [("n1", "tench"), ("n2", "great white shark")]
    with pytest.raises(
        UserError, match="expected names for 2 class folders, got none for 1, first: n3. Add lines such as: n3\tthe"
    ):
        name_classes(["n1", "n3"], str(path))
    path.write_text("great shark\twhite shark\nn1 tench\n")
    assert read_classnames(str(path)) == {"great shark": "white shark", "n1": "tench"}
    path.write_text("n1\n")
    with pytest.raises(UserError, match="line 1: expected a folder's name, a space and the class name, got 'n1'"):
        read_classnames(str(path))
