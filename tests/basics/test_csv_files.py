"""Cells of CSV files are never formulas, and round-trip unchanged."""

import csv

from basics.csv_files import csv_text, read_csv

NAMES = ["cat", "=HYPERLINK(1)", "+1", "-a", "@x", "\ttab", "'=quoted", "''=twice", "'plain", "", "a,b", 'say "hi"']


def test_texts_round_trip_and_are_never_formulas(tmp_path):
    rows = [{"name": name, "value": -0.5} for name in NAMES]
    path = tmp_path / "a.csv"
    path.write_text(csv_text(rows), encoding="utf-8", newline="")
    assert [row["name"] for row in read_csv(path)] == NAMES
    with open(path, newline="", encoding="utf-8") as file:
        cells = [row["name"] for row in csv.DictReader(file)]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in cells)
    assert {row["value"] for row in read_csv(path)} == {"-0.5"}  # a number stays one


def test_columns_keep_the_order_of_their_first_appearance():
    assert csv_text([{"b": 1}, {"a": 2, "b": 3}]) == "b,a\n1,\n3,2\n"
