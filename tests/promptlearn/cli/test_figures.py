import re

import pytest
from PIL import Image

from promptlearn.cli import main
from tests.made_up_runs import MadeUpRuns


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    MadeUpRuns(output).base2new(seeds=(1, 2))
    return output


def test_figures_have_the_width_and_fonts_of_a_paper_and_the_colors_of_the_page(output, capfd):
    arguments = ["figures", str(output), "--only", "base and new", "--format", "pdf", "svg", "png"]
    assert main(arguments) == 0
    folder = output / "base2new" / "figures"
    assert capfd.readouterr().out.strip() == str(folder)
    assert {path.name for path in folder.iterdir()} == {f"base-and-new-digits.{form}" for form in ("pdf", "svg", "png")}
    pdf = (folder / "base-and-new-digits.pdf").read_bytes()
    assert b"/MediaBox [ 0 0 234 " in pdf  # 3.25 inches
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    svg = (folder / "base-and-new-digits.svg").read_text()
    assert ">RPO</text>" in svg and "#1f77b4" in svg and not re.search(r"var\(|#[12]000|mark", svg)
    with Image.open(folder / "base-and-new-digits.png") as image:
        assert image.width == 975
    assert main([*arguments[:4], "--width", "5"]) == 0
    assert b"/MediaBox [ 0 0 360 " in (folder / "base-and-new-digits.pdf").read_bytes()


def test_figures_of_several_folders_and_of_single_runs_go_where_output_says(tmp_path, capfd):
    for name, seed in (("one", 1), ("two", 2)):
        runs = MadeUpRuns(tmp_path / name)
        runs.run("few_shot/train", "digits", "RPO", seed)
        runs.run("trained_by_hand", "digits", "RPO", seed)
    folders = [str(tmp_path / name) for name in ("one", "two")]
    assert main(["figures", *folders, "--output", str(tmp_path / "here"), "--only", "learning"]) == 0
    places = [tmp_path / "here" / name / "figures" for name in ("few_shot", "single_runs")]
    assert capfd.readouterr().out.split() == [str(place) for place in places]
    assert [[path.name for path in place.iterdir()] for place in places] == [["learning-digits-training-loss.pdf"]] * 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--width", "wide"], "--width: expected column, page, or 1 to 40 inches, got wide."),
        (["--width", "nan"], "--width: expected column, page, or 1 to 40 inches, got nan."),
        (["--only", "nothing"], "--only: expected a part of a figure's title, got 'nothing'."),
    ],
)
def test_a_mistake_gives_one_message_and_status_2(output, capfd, arguments, message):
    assert main(["figures", str(output), *arguments]) == 2
    assert message in capfd.readouterr().err
