"""Label tables: a CSV file with a line for each image. Its columns are found by name, whichever program wrote it."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator

from basics import UserError, notify

# Common names of the columns, without case, spaces, and _. The first one that a table has counts.
PATH = (
    "path filepath imagepath imgpath impath picturepath file filename imagefile image img imagename imgname "
    "picture photo name"
).split()
LABEL = "classname labelname categoryname label labels class classes category target species breed y".split()
SPLIT = "split part set subset partition fold usage".split()
PARTS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev"),
    "test": ("test", "testing", "tst", "holdout", "eval", "evaluation"),
}
DELIMITERS = ",;\t|"
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it starts with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def plain(name: str) -> str:
    """Return a name without what spellings differ in: case, spaces, _, -, and dots."""
    return re.sub(r"[\s_.-]+", "", name).casefold()


def part_of(name: str) -> str:
    """Return "train", "val" or "test" for a common name of one ("valid", "Training_Set"), else ""."""
    name = plain(name)
    core = re.sub(r"(set|data|images)$", "", name)
    return next((part for part, names in PARTS.items() if name in names or core in names), "")


def read_table(path: str, columns: str = "") -> list[tuple[str, str, str]]:
    """Read the rows of a CSV file as (path, label, part); without a column for it, the part is "".

    Understood are UTF-8, encodings with a byte-order mark, and Windows-1252; commas, semicolons, tabs, and bars; common
    names of the columns, in any order and with others between them; and quotes.

    Args:
        path: the file.
        columns: its names for path, label, and, if there is one, part, separated by commas; "" to find them.

    Raises:
        UserError: not such a file; a row is incomplete, names no part, or several classes; an image is named twice.
    """
    header, rows = _read_rows(path, columns)
    chosen = _given_columns(header, columns) if columns else _find_columns(header, rows)
    if len(chosen) < 2 or not rows:
        raise UserError(
            f"{path}: expected a header with columns such as path,label or path,label,split and a line for each image, "
            f"got {','.join(header)[:200]!r} and {len(rows)} lines. If its columns have other names, give them: "
            'DATASET.COLUMNS "path column,label column", and a third one for the split.'
        )
    if ignored := [name or "(without a name)" for name in header if name not in chosen]:
        notify(f"Note: {path}: reading the columns {', '.join(chosen)}; ignoring {', '.join(ignored)}")
    places = [header.index(name) for name in chosen]
    found = []
    for number, row in enumerate(rows, start=1):
        values = [row[place] if place < len(row) else "" for place in places]
        found.append(_entry(f"{path}, image {number}", chosen, values))
    twice = [name for name, count in Counter(name for name, *_ in found).items() if count > 1]
    if twice:
        raise UserError(
            f"{path}: expected each image once, got {len(twice)} repeated ones: {', '.join(twice[:3])}. Several "
            "classes for one image are not supported."
        )
    return found


def _entry(place: str, chosen: list[str], values: list[str]) -> tuple[str, str, str]:
    name, label, split = (*values, "")[:3]
    part = part_of(split)
    if not all(values) or (split and not part):
        parts = f" (split: {', '.join(PARTS)})" if len(values) == 3 else ""
        raise UserError(f"{place}: expected {','.join(chosen)}{parts}, got {','.join(values)!r}. Fix the line.")
    if re.search(r"[^;|][;|][^;|]", label):
        raise UserError(
            f"{place}: expected one class, got {label!r}. Several classes for one image are not supported: keep one of "
            "them, or name each combination as a class of its own, without ; and |."
        )
    return name, label, part


def _given_columns(header: list[str], columns: str) -> list[str]:
    chosen = [name.strip() for name in columns.split(",")]
    if not 2 <= len(chosen) <= 3 or not set(chosen) <= set(header):
        raise UserError(
            f"DATASET.COLUMNS: expected the columns of path and label (and split, if there is one) from "
            f"{','.join(header)!r}, got {columns!r}."
        )
    return chosen


def _find_columns(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the columns of path, label, and part (as many as there are), by their common names."""
    columns = {plain(name): name for name in reversed(header)}  # of two columns of one name, the first
    paths, labels, splits = ([columns[name] for name in names if name in columns] for names in (PATH, LABEL, SPLIT))
    if not paths or not labels:
        return []

    def is_named(label: str) -> bool:  # where one column numbers the classes and another one names them
        place = header.index(label)
        return not all(row[place].isdecimal() for row in rows if place < len(row))

    return [paths[0], next(filter(is_named, labels), labels[0]), *splits[:1]]


def _read_rows(path: str, columns: str) -> tuple[list[str], list[list[str]]]:
    """Return the header and the other rows, split by the delimiter that gives the most known columns."""
    text = _decode(path)

    def known(delimiter: str) -> tuple[int, int]:
        try:
            header = next(_reader(text, delimiter), [])
        except csv.Error:
            return 0, 0
        names = {name.strip() for name in columns.split(",")} & {*header} if columns else _find_columns(header, [])
        return len(names), len(header)

    try:
        header, *rows = [*_reader(text, max(DELIMITERS, key=known))] or [[]]
    except csv.Error as error:
        raise UserError(f"{path}: expected a CSV file, got an error: {error}. Fix the file.") from error
    return header, rows


def _reader(text: str, delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return ([value.strip() for value in row] for row in reader if row)


def _decode(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"{path}: expected a CSV file, got an error: {error}. Fix the file.") from error
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UserError(f"{path}: expected a CSV file, got an error: {error}. Fix the file.") from error
        text = content.decode("cp1252", errors="replace")
        notify(f"Note: {path} is not in UTF-8; reading it as Windows-1252 (Latin-1)")
    if "\0" in text:
        raise UserError(f"{path}: expected a CSV file, got a binary one. Export the table as CSV in UTF-8.")
    return text
