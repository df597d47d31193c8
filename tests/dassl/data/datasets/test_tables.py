"""Label tables: what different programs write is read as the same rows."""

import pytest

from basics import UserError
from dassl.data.datasets import read_table
from dassl.data.datasets.tables import part_of

ROWS = [("a.png", "cat", ""), ("b/c.png", "café au lait", "")]


@pytest.fixture
def read(tmp_path):
    """Return read(text, columns, encoding): the rows of a file with that text."""

    def read(text, columns="", encoding="utf-8"):
        (tmp_path / "table.csv").write_bytes(text.encode(encoding))
        return read_table(str(tmp_path / "table.csv"), columns)

    return read


@pytest.mark.parametrize(
    "header",
    [
        "path,label",
        "Path,Label",
        "label,path",
        "filename,label",
        "image_path,class",
        "File Name,Class_Name",
        "img,Species",
    ]
    + [" image ,category", '"file","target"', "name,label"],
)
def test_columns_are_found_by_their_common_names(read, header):
    lines = [header, "a.png,cat", "b/c.png,café au lait"]
    if header.startswith("label"):
        lines[1:] = ["cat,a.png", "café au lait,b/c.png"]
    assert read("\n".join(lines)) == ROWS


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiter_and_encoding_are_found(read, delimiter, encoding, end):
    lines = (("path", "label"), ("a.png", " cat"), ('"b/c.png"', '"café au lait"'), ())
    assert read(end.join(map(delimiter.join, lines)), encoding=encoding) == ROWS


def test_other_columns_are_ignored_with_a_note(read, capsys):
    text = ",height,path,label,width\n0,5,a.png,cat,4\n1,7,b/c.png,café au lait,3\n"  # pandas writes its index first
    assert read(text) == ROWS
    assert "reading the columns path, label; ignoring (without a name), height, width" in capsys.readouterr().err


def test_a_column_of_names_is_preferred_to_one_of_numbers(read):
    assert read("path,label,class\na.png,0,cat\nb/c.png,1,café au lait\n") == ROWS
    assert read("path,class_id,label\na.png,0,7\n") == [("a.png", "7", "")]


def test_quoted_values_may_hold_delimiters(read):
    assert read('path,label\n"a,b.png","tench, ""Tinca tinca"""\n') == [("a,b.png", 'tench, "Tinca tinca"', "")]


def test_columns_can_be_named(read):
    text = "id;where;what;when\n7;a.png;cat;Test\n"
    assert read(text, "where,what") == [("a.png", "cat", "")]
    assert read(text, "where, what, when") == [("a.png", "cat", "test")]
    for columns in ("where", "where,kind", "id,where,what,when"):
        with pytest.raises(UserError, match=r"DATASET.COLUMNS: expected the columns of .* 'id,where,what,when', got"):
            read(text, columns)


def test_parts_have_their_common_names():
    names_of = {
        "train": ("train", "Train", "TRAINING", "training_set", "train-images"),
        "val": ("val", "Valid", "validation", "dev"),
        "test": ("test", "Testing", "Test Set", "hold_out"),
        "": ("cat", "trains", "latest", "testament", ""),
    }
    for part, names in names_of.items():
        assert [part_of(name) for name in names] == [part] * len(names)


def test_several_classes_for_one_image_are_refused(read):
    for label in ("cat;dog", "cat|dog", "cat ; dog"):
        with pytest.raises(UserError, match="expected one class, got .* keep one of them, or name each combination"):
            read(f'path,label\na.png,"{label}"\n')
