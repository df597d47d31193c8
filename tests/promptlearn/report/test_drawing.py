"""Figures take the page's colours and names, and labels keep apart."""

import itertools
import re

from promptlearn.report.drawing import INK, NAMED, apart, draw, series, short


def drawn(title="A title", text="text"):
    def paint(figure):
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "o", color=series(3), label=text)
        axes.text(0, 0, text, color=INK)
        axes.legend()

    return draw(title, "what is seen", (3, 2), paint)


def test_every_colour_is_a_variable_of_the_page():
    svg = drawn().svg
    assert not re.search(r"#[12]000[\da-f]{2}", svg)
    assert "var(--ink, #1b1f24)" in svg and "var(--s3, " in svg
    assert {variable for variable, _ in re.findall(r"var\(--(\w+)(, [^)]*)\)", svg)} <= {*NAMED, "s3"}


def test_two_pictures_share_no_id():
    ids = [set(re.findall(r'\bid="([^"]+)"', drawn(title).svg)) for title in ("one", "two")]
    assert ids[0] and not ids[0] & ids[1]
    for svg in (drawn("one").svg,):  # and what is referred to is there
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', svg)) <= ids[0]


def test_the_same_figure_gives_the_same_text():
    assert drawn().svg == drawn().svg


def test_names_are_text_whatever_is_in_them():
    svg = drawn(text="<b>$x_$ \N{SNOWMAN} \N{OLD PERSIAN SIGN A}").svg
    assert "&lt;b&gt;$x_$ \N{SNOWMAN}" in svg and "<b>" not in svg


def test_labels_are_as_near_to_their_points_as_their_height_allows():
    assert apart([1.0, 5.0], least=2) == [1.0, 5.0]
    assert apart([], least=1) == []
    heights = [3.0, 3.0, 1.0, 2.9]
    placed = apart(heights, least=1)
    assert sum(placed) == sum(heights)  # pushed both ways alike
    in_order = [placed[i] for i in (2, 3, 0, 1)]
    assert all(b - a >= 1 - 1e-9 for a, b in itertools.pairwise(in_order))


def test_long_names_are_shortened():
    assert short("cat") == "cat" and len(short("c" * 100)) == 24
