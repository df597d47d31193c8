"""The page in a real browser: it loads nothing, shows every chart, sorts, and works light, dark and printed."""

import csv
import io
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from PIL import Image

from promptlearn.experiments import PROTOCOLS
from promptlearn.experiments.requested_datasets import OWN_REGISTERED
from promptlearn.report import Comparison, find_comparisons, models, page
from promptlearn.report.charts import axis_places, costs, curves, spread
from promptlearn.report.drawing import short
from promptlearn.report.explanations import Explanation, read_explanation
from promptlearn.report.model_charts import attention_patterns
from promptlearn.report.page import statistical
from tests.made_up_runs import HOSTILE, TOWERS, MadeUpRuns

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
STAGES = ("base", "new")
METHODS = ("zero-shot CLIP", "CoOp", "RPO", "VPT")
COSTS = ("trained parameters", "seconds of training", "peak memory of the process, MiB")
FIGURES = {
    *(f"Base and new: {place}" for place in ("average", "braille", "digits")),
    *(f"Spread over the seeds: {dataset}, {stage}" for dataset in ("braille", "digits") for stage in STAGES),
    *(f"Row minus column, {measure}" for measure in (*STAGES, "H of seeds")),
    *(f"H against {cost}" for cost in COSTS),
    *(f"Learning: {dataset}, training loss" for dataset in ("braille", "digits")),
    *(f"Gains and losses per class over zero-shot CLIP: {dataset}" for dataset in ("braille", "digits")),
    *(
        f"{kind}: {dataset}, {stage}, {method}"
        for kind in ("Confusion", "Reliability")
        for dataset in ("braille", "digits")
        for stage in STAGES
        for method in METHODS
    ),
    *(
        f"Attention pattern: {dataset}, RPO, {side} side"
        for dataset in ("braille", "digits")
        for side in ("text", "image")
    ),
    *(
        f"Where RPO looks: {dataset}, image {image}"
        for dataset in ("braille", "digits")
        for image in ("1, cat (correct)", f"2, {short(HOSTILE)} (predicted fox)")
    ),
    *(f"Image features: {dataset}, {method}" for dataset in ("braille", "digits") for method in ("frozen CLIP", "RPO")),
}


OPEN = "for (const each of document.querySelectorAll('main details')) each.open = true"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    runs = MadeUpRuns(output)
    runs.base2new("digits")
    runs.base2new("braille")
    for shots in (1, 4, 16):
        for seed in (1, 2):
            runs.run("few_shot/train", "digits", "RPO", seed, shots=shots, right=3 + (shots > 1) + (shots > 4))
    runs.run("few_shot/train", "digits", "ZeroshotCLIP", 1)
    return output


@pytest.fixture(scope="module")
def html(output):
    return page(Comparison(PROTOCOLS["base2new"], output), "digits", ["a note"])


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("need a browser (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="need playwright (pip install playwright)")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def shown(browser, html, tmp_path):
    """Return shown(width=1200, **context): the page in a window; its errors and requests are recorded on it."""
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")

    def show(width=1200, **context):
        window = browser.new_page(viewport={"width": width, "height": 900}, **context)
        window.errors, window.requests = [], []
        window.on("console", lambda message: window.errors.append(message.text))
        window.on("pageerror", lambda error: window.errors.append(str(error)))
        window.on("request", lambda request: window.requests.append(request.url))
        window.goto(path.as_uri())
        return window

    return show


def test_the_page_opens_from_disk_without_errors_or_requests(shown):
    window = shown()
    assert window.errors == []
    assert [url for url in window.requests if not url.startswith("data:")] == [window.url]
    assert window.title().startswith("Train on base classes")


def test_every_chart_is_visible_and_described(shown):
    window = shown()
    window.evaluate(OPEN)
    figures = window.evaluate(
        """Array.from(document.querySelectorAll("figure"), figure => {
            const box = figure.querySelector("svg").getBoundingClientRect();
            const label = figure.querySelector("[role=img]").getAttribute("aria-label");
            return [figure.querySelector("figcaption").textContent, box.width, box.height, label.length];
        })"""
    )
    titles = [title for title, *_ in figures]
    assert set(titles) == FIGURES and len(titles) == len(FIGURES)
    assert all(width > 250 and height > 60 and letters > 40 for _, width, height, letters in figures)
    images = window.locator(".gallery img")
    assert images.count() > 0
    assert images.evaluate_all("all => all.every(image => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("width", [1400, 1200, 400])
def test_nothing_overflows_the_window(shown, width):
    window = shown(width)
    window.evaluate(OPEN)
    assert window.evaluate("document.documentElement.scrollWidth") <= width
    boxes = window.locator(".scroll").evaluate_all("all => all.map(box => [box.scrollWidth, box.clientWidth])")
    assert width < 1000 or all(inner <= outer for inner, outer in boxes)  # narrow windows scroll


def test_a_narrow_window_shows_all_results_and_readable_charts(shown):
    window = shown(400)
    window.evaluate(OPEN)
    headings = window.locator("#results th")
    assert headings.all_inner_texts()[2:5] == ["base", "new", "H"]
    ends = headings.evaluate_all("all => all.map(each => each.getBoundingClientRect().right)")
    assert max(ends) <= 400
    heights = window.evaluate(
        """Array.from(document.querySelectorAll("figure svg text"), text =>
            parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b))"""
    )
    assert min(heights) >= 9


def test_a_click_on_a_heading_sorts_and_a_second_one_reverses(shown):
    window = shown()
    table = window.locator("#results table")
    heading = table.locator("th button").nth(2)
    assert heading.inner_text() == "base"

    def column():
        return [float(text.split()[0]) for text in table.locator("tbody tr td:nth-child(3)").all_inner_texts()]

    before = column()
    heading.click()
    assert column() == sorted(before, reverse=True) != before
    assert table.locator("th").nth(2).get_attribute("aria-sort") == "descending"
    heading.press("Enter")  # by the keyboard as well
    assert column() == sorted(before)
    table.get_by_role("button", name="method").click()
    methods = table.locator("tbody tr td:nth-child(2)").all_inner_texts()
    assert methods == [name for name in ("zero-shot CLIP", "CoOp", "RPO", "VPT") for _ in range(3)]
    assert table.locator("th").nth(2).get_attribute("aria-sort") is None


def test_missing_figures_stay_last_in_either_order(output, browser, tmp_path):
    runs = MadeUpRuns(tmp_path)
    runs.base2new()
    gone = tmp_path / "base2new" / "test_new" / "digits" / "shots_16" / "CoOp" / "tiny"
    for path in gone.glob("*/results.json"):
        path.unlink()
    comparison = Comparison(PROTOCOLS["base2new"], tmp_path)
    (tmp_path / "report.html").write_text(page(comparison, "digits", []), encoding="utf-8")
    window = browser.new_page()
    window.goto((tmp_path / "report.html").as_uri())
    assert "3 runs are missing" in window.locator("header").inner_text()
    table = window.locator("#results table")
    for _ in range(2):
        table.get_by_role("button", name="new").click()
        assert table.locator("tbody tr").last.inner_text().count("missing") == 2  # new and H


def test_downloads_hold_what_the_page_shows(shown):
    window = shown()

    def download(place, form):
        with window.expect_download() as started:
            window.locator(f"{place} .save").get_by_role("button", name=form).first.click()
        return Path(started.value.path()).read_bytes()

    rows = window.locator("#results tr").evaluate_all(
        "all => all.map(row => Array.from(row.cells, cell => cell.textContent.trim()))"
    )
    assert list(csv.reader(io.StringIO(download("#results", "CSV").decode()))) == rows
    latex = download("#results", "LaTeX").decode()
    assert latex.startswith("\\begin{tabular}{llrrrr}\n\\toprule\ndataset & method & base & new & H & ")
    assert latex.count(" \\\\\n") == len(rows) and latex.count("\\midrule") == 3  # below the heading and the datasets
    assert "$\\pm$" in latex and "\\textbf{" in latex and "±" not in latex
    svg = download("#base-and-new-average", "SVG").decode()
    texts = {element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"RPO", "CoOp", "VPT"} <= texts and "var(" not in svg
    image = Image.open(io.BytesIO(download("#base-and-new-average", "PNG")))
    assert image.width > 1200 and len(image.convert("RGB").getcolors(10**6)) > 20


def test_the_filter_leaves_out_rows_figures_and_marks_by_the_keyboard(shown):
    window = shown()
    row = window.locator("#results tbody tr").filter(has_text="CoOp").first
    figure = window.locator("#confusion-digits-base-coop")
    mark = window.locator("#base-and-new-average [data-method=CoOp]").first
    assert row.is_visible() and figure.is_visible() and mark.evaluate("each => getComputedStyle(each).opacity") == "1"
    window.locator("#filter summary").press("Enter")
    window.get_by_role("checkbox", name="CoOp").press("Space")
    assert not row.is_visible() and not figure.is_visible()
    assert float(mark.evaluate("each => getComputedStyle(each).opacity")) < 0.1
    assert window.locator("#results tbody tr").filter(has_text="VPT").first.is_visible()
    window.get_by_role("checkbox", name="braille").press("Space")
    assert not window.locator("#results tbody tr").filter(has_text="braille").first.is_visible()
    window.get_by_role("button", name="show all").press("Enter")
    window.keyboard.press("Escape")
    row.wait_for()
    assert figure.is_visible() and not window.locator("#filter form").is_visible()


def test_the_contents_stay_in_view_and_open_a_folded_dataset(shown):
    window = shown(reduced_motion="reduce")
    chart = window.locator("#learning-braille-training-loss")
    assert not chart.is_visible()
    window.locator("nav summary").first.click()
    window.get_by_role("link", name="In detail: braille").click()
    chart.wait_for()
    assert window.evaluate("scrollY") > 500
    assert window.locator("nav").bounding_box()["y"] == 0 and not window.locator("nav ol").is_visible()


def test_the_page_works_without_scripts(shown):
    window = shown(java_script_enabled=False)
    window.locator("nav summary").first.click()
    assert window.get_by_role("link", name="Results").is_visible()
    assert not window.locator("#filter").is_visible() and window.locator("figure svg").first.is_visible()


def test_the_page_follows_the_color_scheme_and_the_button(shown):
    color = "getComputedStyle(document.documentElement).backgroundColor"
    ink = "getComputedStyle(document.querySelector('figure svg text')).fill"
    light, dark = shown(color_scheme="light"), shown(color_scheme="dark")
    assert light.evaluate(color) == "rgb(255, 255, 255)" != dark.evaluate(color)
    assert light.evaluate(ink) != dark.evaluate(ink)
    dark.get_by_role("button", name="dark / light").click()
    assert dark.evaluate(color) == light.evaluate(color) and dark.evaluate(ink) == light.evaluate(ink)


def test_the_printed_page_is_light_and_without_buttons(shown):
    window = shown(color_scheme="dark")
    window.emulate_media(media="print", color_scheme="dark")
    assert window.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert not window.locator("#theme").is_visible() and not window.locator("nav").is_visible()
    assert not window.locator(".save").first.is_visible()


def test_names_from_results_are_never_markup(shown):
    window = shown()
    assert window.title() != "1" and window.locator("img[src=x]").count() == 0
    assert window.get_by_text(HOSTILE).count() > 0


def test_the_browser_checks_can_fail(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<img src='http://127.0.0.1:9/x.png'><script>nowhere()</script>")
    window = browser.new_page()
    errors, requests = [], []
    window.on("pageerror", lambda error: errors.append(str(error)))
    window.on("request", lambda request: requests.append(request.url))
    window.goto((tmp_path / "bad.html").as_uri())
    assert "nowhere" in errors[0] and len(requests) == 2


# ---- without a browser


def test_numbers_on_the_axes_are_readable(html):
    assert ">1,000<" in html and ">10,000<" in html and "mathdefault" not in html  # trained parameters


def test_the_same_runs_give_the_same_page(output, html):
    assert page(Comparison(PROTOCOLS["base2new"], output), "digits", ["a note"]) == html


def test_the_page_states_date_command_version_and_settings(html):
    assert "2026-03-01 to 2026-03-03" in html and "1.2 abc1234" in html
    assert "dassl base2new --trainers CoOp RPO VPT --datasets braille digits --seeds 1 2 3 --shots 16" in html
    differing = html[html.index("Settings that differ") :]
    assert "OPTIM.LR" in differing and "0.2" in differing


def test_single_runs_state_no_command(tmp_path):
    MadeUpRuns(tmp_path).run("by_hand", "digits", "RPO", 1)
    [(comparison, folder)] = find_comparisons([tmp_path])
    assert folder == tmp_path / "single_runs"
    assert "<dt>command</dt>" not in page(comparison, "digits", [])


def test_the_command_names_own_pictures_by_a_path(tmp_path):
    folder = MadeUpRuns(tmp_path).run("few_shot/train", "pets", "RPO", 1)
    result = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(result | {"dataset": OWN_REGISTERED}))
    html = page(Comparison(PROTOCOLS["few_shot"], tmp_path), "pets", [])
    assert "dassl few_shot --trainers RPO --datasets pets=PATH --seeds 1 --shots 16<" in html


def test_few_shot_runs_give_curves(output):
    html = page(Comparison(PROTOCOLS["few_shot"], output), "digits", [])
    assert "Few shots: digits, all" in html and "RPO: 50.2 with 1, 66.8 with 4, 83.5 with 16" in html
    assert "<title>RPO, 16 shots: 83.48 ± 0.07 %, n = 2</title>" in html
    assert "Base vs. new" not in html


def test_curves_of_base_to_new_begin_with_the_average_and_have_h(tmp_path):
    runs = MadeUpRuns(tmp_path)
    for dataset, more in (("digits", 0), ("braille", 2)):
        for shots in (4, 16):
            for subsample, right in (("base", 3), ("new", 1)):
                stage = "train_base" if subsample == "base" else "test_new"
                runs.run(f"base2new/{stage}", dataset, "RPO", 1, subsample, shots=shots, right=right + more)
    found = curves(Comparison(PROTOCOLS["base2new"], tmp_path))
    assert [chart.title for chart in found[:3]] == [f"Few shots: average, {c}" for c in ("base", "new", "H of seeds")]
    assert len(found) == 9
    base, new = (50.1, 16.767), (83.433, 50.1)  # accuracies on digits and braille
    h = sum(2 / (1 / a + 1 / b) for a, b in (base, new)) / 2
    assert f"RPO: {h:.1f} with 4, {h:.1f} with 16" in found[2].alt


def test_names_stay_next_to_the_axes(tmp_path):
    runs = MadeUpRuns(tmp_path)
    for number in range(20):
        for shots in (4, 16):
            runs.run("few_shot/train", "digits", f"Method{number}", 1, shots=shots, right=4 + (number == 0))
    chart = curves(Comparison(PROTOCOLS["few_shot"], tmp_path))[0]
    figure = Figure(chart.size)
    chart.paint(figure)
    [axes] = figure.axes
    low, high = axes.get_ylim()
    heights = sorted(text.xyann[1] for text in axes.texts)
    assert len(heights) == 20 and low - 1e-6 <= heights[0] and heights[-1] <= high + 1e-6


def test_boxes_need_five_runs(tmp_path):
    runs = MadeUpRuns(tmp_path)
    few, many = range(1, 5), range(1, 6)
    for trainer, seeds in (("RPO", few), ("CoOp", many)):
        for seed in seeds:
            runs.run("few_shot/train", "digits", trainer, seed, right=seed)
    [chart] = spread(Comparison(PROTOCOLS["few_shot"], tmp_path), "digits")
    assert chart.svg.count("<title>") == 9  # a value for each run
    figure = Figure()
    chart.paint(figure)
    dots = sum(line.get_marker() == "o" for line in figure.axes[0].lines)
    assert dots == 9 and len(figure.axes[0].lines) == 9 + 4  # the parts of one box


def test_percentages_and_all_images_follow_the_numbers(tmp_path):
    runs = MadeUpRuns(tmp_path)
    for shots, recorded in ((4, {}), ("10%", {"shots": -1, "train_fraction": 0.1}), ("all", {"shots": -1})):
        folder = runs.run("few_shot/train", "digits", "RPO", 1, shots=shots, right=3)
        result = json.loads((folder / "results.json").read_text())
        (folder / "results.json").write_text(json.dumps(result | recorded))
    comparison = Comparison(PROTOCOLS["few_shot"], tmp_path)
    assert comparison.shots == [4, "10%", "all"] and axis_places(comparison.shots) == {4: 4, "10%": 8, "all": 16}
    html = page(comparison, "digits", [])
    assert "RPO: 50.1 with 4, 50.1 with 10%, 50.1 with all" in html and ">10%<" in html


def test_methods_are_tested_and_shown_at_equal_shots(tmp_path):
    runs = MadeUpRuns(tmp_path)
    for subsample, stage in (("base", "train_base"), ("new", "test_new")):
        for shots in (4, 16):
            runs.run(f"base2new/{stage}", "digits", "ZeroshotCLIP", 1, subsample, shots=shots, right=3)
            for seed in (1, 2, 3):
                runs.run(f"base2new/{stage}", "digits", "RPO", seed, subsample, shots=shots, right=shots // 4)
    comparison = Comparison(PROTOCOLS["base2new"], tmp_path)
    assert comparison.methods == ["zero-shot CLIP", "RPO"] and comparison.number("RPO") == 1
    html = page(comparison, "digits", [])
    for shots in (4, 16):
        assert f"All pairs of methods, base, {shots} shots" in html
    assert "RPO (4 shots)" not in html and "zero-shot CLIP (" not in html
    assert html.count("Only runs with 16 shots are shown here") == 7  # base and new, spread, learning, gains, ...


def test_critical_differences_are_drawn_from_six_datasets(tmp_path):
    runs = MadeUpRuns(tmp_path)
    for number in range(6):
        for right, trainer in enumerate(("ZeroshotCLIP", "RPO", "CoOp", "VPT")):
            runs.run("few_shot/train", f"set{number}", trainer, 1, right=right)
    title = "Critical differences: 16 shots"
    assert title in [chart.title for chart in statistical(Comparison(PROTOCOLS["few_shot"], tmp_path)).charts]
    for path in tmp_path.glob("few_shot/train/set5/*/RPO/*/*/results.json"):
        path.unlink()
    section = statistical(Comparison(PROTOCOLS["few_shot"], tmp_path))
    assert title not in [chart.title for chart in section.charts]
    assert " ".join(section.text).count("No ranks: Friedman") == 1


def test_a_test_of_one_class_is_in_no_chart(tmp_path):
    runs = MadeUpRuns(tmp_path)
    runs.base2new()
    for path in tmp_path.glob("base2new/test_new/*/*/*/*/*/results.json"):
        result = json.loads(path.read_text())
        result["metrics"]["per_class"].popitem()
        path.write_text(json.dumps(result))
    comparison = Comparison(PROTOCOLS["base2new"], tmp_path)
    html = page(comparison, "digits", [])
    assert "One class: tested on images of a single class" in html and "Confusion: digits, base" in html
    assert "Confusion: digits, new" not in html and "Base and new: digits" not in html
    assert comparison.accuracies("RPO", "digits", "new") == []


def test_a_cost_that_no_run_of_a_method_recorded_is_not_shown_as_zero(tmp_path):
    runs = MadeUpRuns(tmp_path)
    for trainer in ("ZeroshotCLIP", "RPO", "CoOp"):
        path = runs.run("few_shot/train", "digits", trainer, 1) / "results.json"
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"trained_parameters": 2048 if trainer == "RPO" else None}))
    chart = costs(Comparison(PROTOCOLS["few_shot"], tmp_path))[0]
    assert chart.title == "16 shots against trained parameters"
    assert chart.alt.endswith("zero-shot CLIP: 50.10 %; CoOp: 50.10 %; RPO: 50.10 % with 2,048.")
    assert set(re.findall(r"<title>(.*?): ", chart.svg)) == {"zero-shot CLIP", "RPO"}


def test_a_transfer_shows_each_target_and_their_mean(tmp_path):
    runs = MadeUpRuns(tmp_path)
    for stage, right in (("train_source", 5), ("cross_dataset/test_dtd", 4), ("cross_dataset/test_eurosat", 2)):
        runs.run(stage, "imagenet", "ZeroshotCLIP", 1, right=2)
        for trainer in ("RPO", "CoOp"):
            for seed in (1, 2):
                runs.run(stage, "imagenet", trainer, seed, right=right)
    html = page(Comparison(PROTOCOLS["cross_dataset"], tmp_path), "imagenet", [])
    for stage in ("source", "dtd", "eurosat", "mean of targets"):
        assert f">{stage}</button>" in html
    assert (
        "RPO, eurosat: 33.4 to 33.5, n = 2" in html and "mean of targets (imagenet) against trained parameters" in html
    )


def test_variants_of_an_ablation_are_different_methods(tmp_path):
    runs = MadeUpRuns(tmp_path)
    for number in range(20):  # more than are shown in detail
        for subsample, stage in (("base", "train_base"), ("new", "test_new")):
            runs.run(f"ablation/{stage}", "digits", "RPO", 1, subsample, right=number % 7, config=f"tiny,K={number}")
    comparison = Comparison(PROTOCOLS["ablation"], tmp_path)
    assert len(comparison.methods) == 20 and comparison.zero_shot is None
    html = page(comparison, "digits", [])
    assert "RPO (K=19)" in html and "Base and new: digits" in html and "Gains and losses per class" not in html


def test_old_runs_without_predictions_and_timings_give_a_page(tmp_path):
    runs = MadeUpRuns(tmp_path)
    runs.base2new(seeds=(1,))
    for path in tmp_path.rglob("predictions.csv"):
        path.unlink()
    for path in tmp_path.rglob("results.json"):
        result = json.loads(path.read_text())
        kept = ("status", "trainer", "dataset", "seed", "shots", "subsample", "prompts_sha256")
        path.write_text(json.dumps({key: result[key] for key in kept} | {"metrics": {"accuracy": 50.0}}))
    html = page(Comparison(PROTOCOLS["base2new"], tmp_path), "digits", [])
    assert "Base vs. new" in html and "Confusions" not in html and "Gains and losses per class" not in html


def test_a_side_without_layers_is_not_drawn():
    text = {"text": TOWERS["text"]}
    [chart] = attention_patterns("CoOp", "digits", Explanation(text, [], {}, {}))
    assert "text side" in chart.title


def test_an_explanation_of_an_earlier_model_is_ignored(tmp_path):
    runs = MadeUpRuns(tmp_path)
    runs.explain(runs.run("base2new/train_base", "digits", "RPO", 1, "base"), digest="an earlier one")
    run = models(Comparison(PROTOCOLS["base2new"], tmp_path), "digits")["RPO"]
    assert read_explanation(run) is None


def test_an_explanation_of_an_earlier_format_is_ignored(tmp_path):
    runs = MadeUpRuns(tmp_path)
    runs.explain(runs.run("base2new/train_base", "digits", "RPO", 1, "base"))
    [run] = models(Comparison(PROTOCOLS["base2new"], tmp_path), "digits").values()
    path = run.job.folder / "explain" / "explain.json"
    explanation = json.loads(path.read_text())
    path.write_text(json.dumps(explanation | {"format": explanation["format"] - 1}))
    assert read_explanation(run) is None


@pytest.mark.parametrize("damage", ["explain.json", "explain.npz"])
def test_a_damaged_explanation_is_ignored(tmp_path, damage):
    runs = MadeUpRuns(tmp_path)
    runs.explain(runs.run("base2new/train_base", "digits", "RPO", 1, "base"))
    [run] = models(Comparison(PROTOCOLS["base2new"], tmp_path), "digits").values()
    assert read_explanation(run).words
    path = run.job.folder / "explain" / damage
    path.write_bytes(path.read_bytes()[:100])
    assert read_explanation(run) is None
