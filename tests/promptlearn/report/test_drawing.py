"""Charts use the page's colors and names, and labels do not overlap."""

import itertools
import re

from promptlearn.report.drawing import DRAWN, INK, LIGHT, Chart, looks, series, short, spread_out


def drawn(title="A title", text="text"):
    def paint(figure):
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "o", color=series(3), label=text)
        axes.text(0, 0, text, color=INK)
        axes.legend()

    return Chart(title, "a description", (3, 2), paint)


def test_every_color_is_a_variable_of_the_page():
    svg = drawn().svg
    assert not re.search(r"#[12]000[\da-f]{2}", svg)
    assert LIGHT.keys() == DRAWN.keys()
    assert f"var(--ink, {LIGHT['ink']})" in svg and f"var(--s3, {LIGHT['s3']})" in svg
    assert {variable for variable, _ in re.findall(r"var\(--(\w+)(, [^)]*)\)", svg)} <= DRAWN.keys()


def test_methods_of_the_same_color_differ_in_marker_and_dashes():
    forty = [looks(number) for number in range(40)]
    for one, other in itertools.combinations(forty, 2):
        differing = {key for key in one if one[key] != other[key]}
        assert "color" in differing or differing == {"marker", "linestyle"}
    assert looks(3) == looks(3) and looks(3)["color"] == series(3)


def test_two_charts_share_no_id():
    ids = [set(re.findall(r'\bid="([^"]+)"', drawn(title).svg)) for title in ("one", "two")]
    assert ids[0] and not ids[0] & ids[1]
    for svg in (drawn("one").svg,):  # and every reference has a target
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', svg)) <= ids[0]


def test_the_same_chart_gives_the_same_svg():
    assert drawn().svg == drawn().svg


def test_names_are_never_markup_in_charts():
    svg = drawn(text="<b>$x_$ \N{SNOWMAN} \N{OLD PERSIAN SIGN A}").svg
    assert "&lt;b&gt;$x_$ \N{SNOWMAN}" in svg and "<b>" not in svg


def test_labels_stay_near_their_points_without_overlap():
    assert spread_out([1.0, 5.0], least=2) == [1.0, 5.0]
    assert spread_out([], least=1) == []
    heights = [3.0, 3.0, 1.0, 2.9]
    placed = spread_out(heights, least=1)
    assert sum(placed) == sum(heights)  # moved up and down equally
    in_order = [placed[i] for i in (2, 3, 0, 1)]
    assert all(b - a >= 1 - 1e-9 for a, b in itertools.pairwise(in_order))


def test_long_names_are_shortened():
    assert short("cat") == "cat" and len(short("c" * 100)) == 24
