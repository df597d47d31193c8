"""Label tables: a CSV file with a line for each image. Its columns are found by name, whichever program wrote it."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice

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
WINDOWS = "cp1252"
ON_ERROR = {WINDOWS: "replace"}
BLOCK = 2**20  # letters that are decoded at a time
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
    try:
        chosen, rows = _open(path, columns)
        found = []
        labels: dict[str, str] = {}  # so that images of one class share its name
        for number, values in enumerate(rows, start=1):
            name, label, part = _entry(path, number, chosen, values)
            found.append((name, labels.setdefault(label, label), part))
    except csv.Error as error:
        raise UserError(f"{path}: expected a CSV file, got an error: {error}. Fix the file.") from error
    twice = [name for name, count in Counter(name for name, *_ in found).items() if count > 1]
    if twice:
        raise UserError(
            f"{path}: expected each image once, got {len(twice)} repeated ones: {', '.join(twice[:3])}. Several "
            "classes for one image are not supported."
        )
    return found


def _open(path: str, columns: str) -> tuple[list[str], Iterator[list[str]]]:
    """Return the chosen columns, and the values in them row by row. The file is read as a stream, several times."""
    encoding = _encoding(path)

    def rows(delimiter: str) -> Iterator[list[str]]:
        return islice(_reader(path, encoding, delimiter), 1, None)

    def known(delimiter: str) -> tuple[int, int]:
        try:
            header = next(_reader(path, encoding, delimiter), [])
        except csv.Error:
            return 0, 0
        names = {name.strip() for name in columns.split(",")} & {*header} if columns else _find_columns(header, ())
        return len(names), len(header)

    delimiter = max(DELIMITERS, key=known)
    header = next(_reader(path, encoding, delimiter), [])
    chosen = _given_columns(header, columns) if columns else _find_columns(header, rows(delimiter))
    if len(chosen) < 2 or next(rows(delimiter), None) is None:
        raise UserError(
            f"{path}: expected a header with columns such as path,label or path,label,split and a line for each image, "
            f"got {','.join(header)[:200]!r} and {sum(1 for _ in rows(delimiter))} lines. If its columns have other "
            'names, give them: DATASET.COLUMNS "path column,label column", and a third one for the split.'
        )
    if ignored := [name or "(without a name)" for name in header if name not in chosen]:
        notify(f"Note: {path}: reading the columns {', '.join(chosen)}; ignoring {', '.join(ignored)}")
    places = [header.index(name) for name in chosen]
    return chosen, ([row[place] if place < len(row) else "" for place in places] for row in rows(delimiter))


def _entry(path: str, number: int, chosen: list[str], values: list[str]) -> tuple[str, str, str]:
    name, label, split = (*values, "")[:3]
    part = _part_of(split)
    if not all(values) or (split and not part):
        parts = f" (split: {', '.join(PARTS)})" if len(values) == 3 else ""
        raise UserError(
            f"{path}, image {number}: expected {','.join(chosen)}{parts}, got {','.join(values)!r}. Fix the line."
        )
    if _names_several(label):
        raise UserError(
            f"{path}, image {number}: expected one class, got {label!r}. Several classes for one image are not "
            "supported: keep one of them, or name each combination as a class of its own, without ; and |."
        )
    return name, label, part


_part_of = lru_cache(part_of)  # a table repeats its parts and labels


@lru_cache(2**16)
def _names_several(label: str) -> bool:
    return re.search(r"[^;|][;|][^;|]", label) is not None


def _given_columns(header: list[str], columns: str) -> list[str]:
    chosen = [name.strip() for name in columns.split(",")]
    if not 2 <= len(chosen) <= 3 or not set(chosen) <= set(header):
        raise UserError(
            f"DATASET.COLUMNS: expected the columns of path and label (and split, if there is one) from "
            f"{','.join(header)!r}, got {columns!r}."
        )
    return chosen


def _find_columns(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Return the columns of path, label, and part (as many as there are), by their common names."""
    columns = {plain(name): name for name in reversed(header)}  # of two columns of one name, the first
    paths, labels, splits = ([columns[name] for name in names if name in columns] for names in (PATH, LABEL, SPLIT))
    if not paths or not labels:
        return []

    if len(labels) > 1:  # where one column numbers the classes and another one names them
        numbers = {header.index(label): label for label in labels}
        for row in rows:
            numbers = {place: label for place, label in numbers.items() if place >= len(row) or row[place].isdecimal()}
            if not numbers:
                break
        labels = [label for label in labels if label not in numbers.values()] or labels
    return [paths[0], labels[0], *splits[:1]]


def _reader(path: str, encoding: str, delimiter: str) -> Iterator[list[str]]:
    with open(path, encoding=encoding, errors=ON_ERROR.get(encoding, "strict"), newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        yield from ([value.strip() for value in row] for row in reader if row)


def _encoding(path: str) -> str:
    """Return the encoding of a file, of which all is read, as a stream."""
    try:
        with open(path, "rb") as file:
            start = file.read(max(map(len, BYTE_ORDER_MARKS)))
        encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")
        try:
            is_binary = _has_null(path, encoding)
        except UnicodeDecodeError:
            if encoding != "utf-8":
                raise
            encoding = WINDOWS
            is_binary = _has_null(path, encoding)
            notify(f"Note: {path} is not in UTF-8; reading it as Windows-1252 (Latin-1)")
    except (OSError, UnicodeError) as error:
        raise UserError(f"{path}: expected a CSV file, got an error: {error}. Fix the file.") from error
    if is_binary:
        raise UserError(f"{path}: expected a CSV file, got a binary one. Export the table as CSV in UTF-8.")
    return encoding


def _has_null(path: str, encoding: str) -> bool:
    with open(path, encoding=encoding, errors=ON_ERROR.get(encoding, "strict"), newline="") as file:
        return any("\0" in text for text in iter(lambda: file.read(BLOCK), ""))
