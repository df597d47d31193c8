"""CSV files, in which no cell is a formula: spreadsheets execute cells that start with `=`, `+`, `-`, or `@`."""

import csv
import io
import re
from pathlib import Path

FORMULA = re.compile(r"'*[=+\-@\t\r]")  # a text that a spreadsheet might execute, and one that is already quoted
QUOTED = re.compile(r"'+[=+\-@\t\r]")


def csv_text(rows):
    """Return rows (dicts) as CSV text, with columns in the order of their first appearance.

    A text that could be a formula gets a leading `'`, which spreadsheets hide and `read_csv` removes.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _quote(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def read_csv(path):
    """Return the rows of a file that `csv_text` made, as dicts of strings; a cell that is missing is None.

    Raises:
        OSError, ValueError, csv.Error: the file cannot be read, or is not CSV.
    """
    with open(Path(path), newline="", encoding="utf-8") as file:
        return [{key: _unquote(value) for key, value in row.items()} for row in csv.DictReader(file, strict=True)]


def _quote(value):
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _unquote(value):
    return value[1:] if isinstance(value, str) and QUOTED.match(value) else value
