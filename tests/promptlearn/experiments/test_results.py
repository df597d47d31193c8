import csv
import json
import re
import statistics

import pytest

from promptlearn.experiments import PROTOCOLS, discover, summarize, table, write_summary
from promptlearn.experiments.results_table import best_lines, metrics_of
from promptlearn.experiments.shots import in_results, parse_shots

BASE2NEW = PROTOCOLS["base2new"]
SUBSAMPLE = {"train_base": "base", "test_new": "new"}


@pytest.fixture
def put(tmp_path):
    """Write the results.json of one run; with accuracy None, only create its folder."""

    def write(stage, dataset, trainer, seed, accuracy, config="tiny", shots=16, **changes):
        folder = tmp_path / stage / dataset / f"shots_{shots}" / trainer / config / f"seed{seed}"
        folder.mkdir(parents=True)
        result = {
            "format": 1,
            "status": "done",
            "trainer": trainer,
            "dataset": "any registered name",
            "seed": seed,
            **in_results(parse_shots(shots)),
            "subsample": SUBSAMPLE.get(stage.rpartition("/")[2], "all"),
            "prompts_sha256": "abc",
            "metrics": {"accuracy": accuracy},
        }
        if accuracy is not None:
            (folder / "results.json").write_text(json.dumps(result | changes))

    return write


@pytest.fixture
def lines(tmp_path):
    return lambda protocol=BASE2NEW: summarize(protocol, discover(protocol, tmp_path))


@pytest.fixture
def shown(lines):
    """Return the rows of the printed table, as lists of cells."""

    def rows(protocol=BASE2NEW, **options):
        text = table(protocol, lines(protocol), **options).split("\n\n")[0].splitlines()[2:]
        return [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in text]

    return rows


def pair(put, dataset, trainer, seed, base, new, **changes):
    put("base2new/train_base", dataset, trainer, seed, base, **changes)
    put("base2new/test_new", dataset, trainer, seed, new, **changes)


def full(put, dataset="digits", **changes):
    pair(put, dataset, "ZeroshotCLIP", 1, 80.0, 60.0, **changes)
    for seed, base, new in [(1, 90.0, 50.0), (2, 92.0, 60.0), (3, 97.0, 70.0)]:
        pair(put, dataset, "RPO", seed, base, new, **changes)


def h(base, new):
    return 2 * base * new / (base + new)


def test_a_line_has_mean_deviation_and_one_harmonic_mean(put, shown):
    full(put)
    of_seeds = [h(90, 50), h(92, 60), h(97, 70)]
    spread = f"{sum(of_seeds) / 3:.2f} ± {statistics.stdev(of_seeds):.2f}"
    assert shown() == [
        ["digits", "zero-shot CLIP", "80.00", "60.00", "68.57", "1"],
        ["digits", "RPO", "93.00 ± 3.61", "60.00 ± 10.00", f"{h(93, 60):.2f}", "3"],
    ]
    assert shown(harmonic="seeds")[1][2:] == ["93.00 ± 3.61", "60.00 ± 10.00", spread, "3"]


def test_notes_explain_the_figures(put, lines):
    full(put)
    text = table(BASE2NEW, lines())
    assert "sample standard deviation" in text and "H: harmonic mean of the mean base" in text
    assert "H of seeds" not in text and "H of seeds:" in table(BASE2NEW, lines(), harmonic="seeds")
    assert "published" not in text


def test_costs_are_medians_over_the_training_runs(put, lines):
    for dataset in ("digits", "letters"):
        for seed, gflop in [(1, 2.0), (2, 5.0), (3, 3.0)]:
            costs = {"gflop": {"training_step": gflop, "test_image": 0.25}, "trained_parameters": 1536}
            put("base2new/train_base", dataset, "RPO", seed, 90.0, task="train", **costs)
            costs["gflop"] = {"training_step": None, "test_image": 9.0}
            put("base2new/test_new", dataset, "RPO", seed, 60.0, task="eval", **costs)
    put("base2new/train_base", "letters", "CoOp", 1, 50.0, task="train")  # of an older version: nothing recorded
    text = table(BASE2NEW, lines(), costs=True)
    rows = {row.split()[1]: row for row in text.splitlines() if row.startswith(("digits", "average"))}
    assert rows["RPO"].split()[-3:] == ["1,536", "3", "0.25"]
    assert "GFLOP/image: of a test image" in text and "GFLOP" not in table(BASE2NEW, lines())
    assert next(row for row in text.splitlines() if "CoOp" in row and "letters" in row).split()[-1] == "1"


def test_another_metric_stands_in_the_columns(put, tmp_path):
    for seed, figure in ((1, 70.0), (2, 80.0)):
        put("base2new/train_base", "digits", "RPO", seed, 90.0, metrics={"accuracy": 90.0, "macro_f1": figure, "n": 5})
        put("base2new/test_new", "digits", "RPO", seed, 50.0)
    jobs = discover(BASE2NEW, tmp_path)
    assert metrics_of(jobs) == ["accuracy", "macro_f1"]
    text = table(BASE2NEW, summarize(BASE2NEW, jobs, "macro_f1"), metric="macro_f1")
    assert "75.00 ± 7.07" in text and "missing" in text and "macro f1 in percent: mean" in text


def test_calibration_is_that_of_the_first_column(put, lines):
    separation = {"auroc": 81.25, "fpr95": 40.0}
    unknowns = {"known": 9, "unknown": 9, "max_softmax": separation, "energy": separation | {"auroc": 75.0}}
    calibration = {"temperature": 1.5, "test_ece_after": 2.0}
    put(
        *("base2new/train_base", "digits", "RPO", 1, 90.0),
        metrics={"accuracy": 90.0, "ece": 6.5},
        calibration=calibration,
        unknowns=unknowns,
    )
    put("base2new/test_new", "digits", "RPO", 1, 60.0, metrics={"accuracy": 60.0, "ece": 30.0})
    put("base2new/train_base", "digits", "CoOp", 1, 50.0)
    text = table(BASE2NEW, lines(), calibration=True)
    rows = {row.split()[1]: row.split() for row in text.splitlines() if row.startswith("digits")}
    assert rows["RPO"][-7:] == ["6.50", "1.50", "2.00", "81.25", "40.00", "75.00", "40.00"]
    assert rows["CoOp"][-1] == "1"  # the number of seeds: nothing was measured
    assert "ECE: expected calibration error" in text and "ECE" not in table(BASE2NEW, lines())


def test_calibration_has_no_column_that_nobody_recorded(put, lines):
    put("base2new/train_base", "digits", "RPO", 1, 90.0, metrics={"accuracy": 90.0, "ece": 6.5})
    put("base2new/train_base", "digits", "CoOp", 1, 50.0)
    header = table(BASE2NEW, lines(), calibration=True).splitlines()[0].split()
    assert header[-2:] == ["seeds", "ECE"]


def test_a_missing_run_does_not_count_as_zero(put, shown):
    put("base2new/train_base", "digits", "RPO", 1, 90.0)
    put("base2new/train_base", "digits", "RPO", 2, 92.0)
    put("base2new/train_base", "digits", "RPO", 3, None)
    assert shown() == [["digits", "RPO", "91.00 ± 1.41 (2 of 3)", "missing", "missing", "3"]]


def test_zero_percent_is_a_result(put, shown):
    pair(put, "digits", "RPO", 1, 0.0, 50.0)
    assert shown() == [["digits", "RPO", "0.00", "50.00", "0.00", "1"]]


@pytest.mark.parametrize("changes", [{"status": "running"}, {"subsample": "all"}, {"prompts_sha256": "other"}])
def test_a_test_of_another_training_is_missing(put, shown, changes):
    put("base2new/train_base", "digits", "RPO", 1, 90.0)
    put("base2new/test_new", "digits", "RPO", 1, 50.0, **changes)
    assert shown() == [["digits", "RPO", "90.00", "missing", "missing", "1"]]


def test_an_average_is_over_each_seed_and_its_h_is_that_of_the_averages(put, shown):
    runs = {"digits": [(90.0, 50.0), (80.0, 70.0)], "braille": [(60.0, 40.0), (70.0, 20.0)]}
    for dataset, accuracies in runs.items():
        for seed, (base, new) in enumerate(accuracies, start=1):
            pair(put, dataset, "RPO", seed, base, new)
    of_seeds = [(h(90, 50) + h(60, 40)) / 2, (h(80, 70) + h(70, 20)) / 2]
    means = ["average", "RPO", "75.00 ± 0.00", "45.00 ± 0.00"]
    of_seeds = f"{statistics.mean(of_seeds):.2f} ± {statistics.stdev(of_seeds):.2f}"
    assert shown()[-1] == [*means, f"{h(75, 45):.2f}", "2"]
    assert shown(harmonic="seeds")[-1] == [*means, of_seeds, "2"]


def test_a_method_with_a_missing_run_has_no_average(put, shown):
    full(put, "braille")
    pair(put, "digits", "RPO", 1, 83.0, 80.0)
    averages = [row[1:] for row in shown() if row[0] == "average"]
    assert averages == [
        ["zero-shot CLIP", "missing", "missing", "missing", "1"],
        ["RPO", "missing", "missing", "missing", "3"],
    ]


def test_one_dataset_has_no_average(put, shown):
    full(put)
    assert "average" not in [row[0] for row in shown()]


def test_names_distinguish_the_lines_of_one_method(put, shown):
    for config, shots in [("tiny", 16), ("large", 16), ("tiny,K=4,MASK=False", 16), ("tiny", 4)]:
        put("base2new/train_base", "digits", "RPO", 1, 80.0, config=config, shots=shots)
    assert [row[1] for row in shown()] == [
        "RPO (large, 16 shots)",
        "RPO (tiny, 4 shots)",
        "RPO (tiny, 16 shots)",
        "RPO (tiny, K=4, MASK=False, 16 shots)",
    ]


def test_few_shot_has_a_column_per_number_of_shots(put, shown):
    few_shot = PROTOCOLS["few_shot"]
    put("few_shot/train", "digits", "ZeroshotCLIP", 1, 50.0)
    for seed in (1, 2):
        put("few_shot/train", "digits", "RPO", seed, 60.0 + seed, shots=1)
    put("few_shot/train", "digits", "RPO", 1, 80.0)
    put("few_shot/train", "digits", "CoOp", 1, 70.0, shots=4)
    assert shown(few_shot) == [
        ["digits", "zero-shot CLIP", "50.00", "50.00", "50.00", "1"],
        ["digits", "CoOp", "missing", "70.00", "missing", "1"],
        ["digits", "RPO", "61.50 ± 0.71", "missing", "80.00 (1 of 2)", "2"],
    ]


def test_percentages_and_all_images_are_columns_after_the_numbers(put, lines, shown, tmp_path):
    few_shot = PROTOCOLS["few_shot"]
    for shots, accuracy in (("all", 90.0), (16, 80.0), ("10%", 70.0), (200, 85.0)):
        put("few_shot/train", "digits", "RPO", 1, accuracy, shots=shots)
    assert shown(few_shot) == [["digits", "RPO", "80.00", "85.00", "70.00", "90.00", "1"]]
    header = table(few_shot, lines(few_shot)).splitlines()[0]
    assert re.split("  +", header)[2:-1] == ["16 shots", "200 shots", "10% of images", "all images"]
    write_summary(few_shot, tmp_path)
    assert "10% of images_mean" in (tmp_path / "few_shot" / "summary.csv").read_text()


def test_rows_with_a_percentage_and_with_all_images_are_named(put, shown):
    for shots in ("all", "10%", 16):
        put("base2new/train_base", "digits", "RPO", 1, 80.0, shots=shots)
    assert [row[1] for row in shown()] == ["RPO (16 shots)", "RPO (10% of images)", "RPO (all images)"]


def test_a_result_of_another_share_of_the_images_does_not_count(put, shown, tmp_path):
    put("few_shot/train", "digits", "RPO", 1, 90.0, shots="all", train_fraction=0.1)
    put("few_shot/train", "digits", "CoOp", 1, 90.0, shots="10%", train_fraction=1.0)
    (tmp_path / "few_shot/train/digits/shots_0%/LP/tiny/seed1").mkdir(parents=True)  # not a folder of a run
    assert [row[2:] for row in shown(PROTOCOLS["few_shot"])] == [["missing", "missing", "1"]] * 2


def test_a_transfer_has_a_column_per_target_and_their_mean(put, shown):
    put("train_source", "letters", "RPO", 1, 90.0)
    put("cross_dataset/test_braille", "letters", "RPO", 1, 50.0)
    put("cross_dataset/test_digits", "letters", "RPO", 1, 70.0)
    assert shown(PROTOCOLS["cross_dataset"]) == [["letters", "RPO", "90.00", "50.00", "70.00", "60.00", "1"]]


def test_a_source_training_for_one_transfer_is_not_shown_in_another(put, lines, tmp_path):
    put("train_source", "letters", "RPO", 1, 90.0)
    put("train_source", "letters", "CoOp", 1, 90.0)
    put("cross_dataset/test_braille", "letters", "RPO", 1, 50.0)
    put("domain_generalization/test_letters_v2", "letters", "CoOp", 1, 50.0)
    assert [line.row.trainer for line in lines(PROTOCOLS["cross_dataset"])] == ["RPO"]
    assert [line.row.trainer for line in lines(PROTOCOLS["domain_generalization"])] == ["CoOp"]


def test_published_figures_are_shown_for_runs_with_their_backbone(put, lines):
    full(put, "eurosat", backbone="ViT-B/16")
    text = table(BASE2NEW, lines())
    zero_shot, rpo = (line.split() for line in text.splitlines()[2:4])
    assert zero_shot[-10:] == "56.48 / 64.05 / 60.03 +23.52 / -4.05 / +8.54".split()
    assert " ".join(rpo[:-11]).endswith(" 86.63 ± 0.67 / 68.97 ± 1.91 / 76.79")
    of_seeds = [h(90, 50), h(92, 60), h(97, 70)]  # RPO's convention
    difference = statistics.mean(of_seeds) - 76.79
    assert rpo[-3:] == [f"{difference:+.2f}", f"({difference / statistics.stdev(of_seeds):+.1f}", "sd)"]


@pytest.mark.parametrize("changes", [{"backbone": "tiny"}, {}])
def test_runs_of_another_kind_have_no_published_figures(put, lines, changes):
    full(put, "eurosat", **changes)
    assert "published" not in table(BASE2NEW, lines())


def test_other_shots_have_no_published_figures_but_zero_shot_clip_has_none(put, lines):
    full(put, "eurosat", shots=4, backbone="ViT-B/16")
    zero_shot, rpo = table(BASE2NEW, lines()).splitlines()[2:4]
    assert "56.48 / 64.05 / 60.03" in zero_shot and rpo.split()[-1] == "3"


def test_zero_shot_clip_has_one_line_and_one_seed_for_all_shots(put, lines, shown):
    for shots in (4, 16):
        for seed in (1, 2):
            pair(put, "digits", "ZeroshotCLIP", seed, 80.0, 60.0, shots=shots)
            pair(put, "digits", "RPO", seed, 70.0 + shots + seed, 50.0, shots=shots)
    assert [row[1:3] + row[-1:] for row in shown()] == [
        ["zero-shot CLIP", "80.00", "1"],
        ["RPO (4 shots)", "75.50 ± 0.71", "2"],
        ["RPO (16 shots)", "87.50 ± 0.71", "2"],
    ]
    assert [line.row.shots for line in lines()] == [None, 4, 16]


def test_any_finished_run_of_zero_shot_clip_counts(put, shown):
    put("base2new/train_base", "digits", "ZeroshotCLIP", 1, None, shots=16)
    put("base2new/test_new", "digits", "ZeroshotCLIP", 1, None, shots=16)
    pair(put, "digits", "ZeroshotCLIP", 3, 80.0, 60.0, shots=4)
    assert shown() == [["digits", "zero-shot CLIP", "80.00", "60.00", "68.57", "1"]]


def best(lines):
    """Return the (method, mean base accuracy) of the lines that are best in base."""
    marked = zip(lines, best_lines(lines, "base"), strict=True)
    return [(line.method, line.mean("base")) for line, is_best in marked if is_best]


def test_the_best_are_those_among_equal_shots(put, lines):
    accuracies = {("RPO", 4): 60.0, ("CoOp", 4): 70.0, ("RPO", 16): 90.0, ("CoOp", 16): 80.0}
    for (trainer, shots), accuracy in accuracies.items():
        put("base2new/train_base", "digits", trainer, 1, accuracy, shots=shots)
    assert best(lines()) == [("CoOp (4 shots)", 70.0), ("RPO (16 shots)", 90.0)]
    put("base2new/train_base", "digits", "ZeroshotCLIP", 1, 75.0, shots=16)
    assert best(lines()) == [("RPO (16 shots)", 90.0)]  # zero-shot CLIP beats 4 shots, but not all
    put("base2new/train_base", "braille", "RPO", 1, 50.0)
    assert best(lines()) == [("RPO (16 shots)", 90.0)]  # alone on its dataset


def test_equal_figures_are_equally_good_and_incomplete_ones_are_not(put, lines):
    for trainer, accuracy in (("RPO", 90.001), ("CoOp", 90.002), ("VPT", 80.0), ("LP", 95.0)):
        put("base2new/train_base", "digits", trainer, 1, accuracy)
    put("base2new/train_base", "digits", "LP", 2, None)
    assert [method for method, _ in best(lines())] == ["CoOp", "RPO"]


def test_the_lowest_error_is_the_best(put, tmp_path):
    for trainer, error in (("RPO", 10.0), ("CoOp", 20.0)):
        put("base2new/train_base", "digits", trainer, 1, 0.0, metrics={"accuracy": 100 - error, "error_rate": error})
    lines = summarize(BASE2NEW, discover(BASE2NEW, tmp_path), "error_rate")
    text = table(BASE2NEW, lines, "markdown", metric="error_rate")
    assert "**10.00**" in text and "**20.00**" not in text


def test_latex_has_bold_means_plus_minus_signs_and_rules(put, lines):
    full(put, "fgvc_aircraft")
    text = table(BASE2NEW, lines(), "latex")
    assert r"\textbf{93.00} $\pm$ 3.61" in text and r"fgvc\_aircraft" in text
    assert text.startswith(r"\begin{tabular}{llrrrr}") and text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    full(put, "braille")
    rows = table(BASE2NEW, lines(), "latex").split("\\bottomrule")[0].splitlines()[4:]
    rules = [i for i, row in enumerate(rows) if row == r"\midrule"]
    assert rules == [2, 5] and [rows[i - 1].split()[0] for i in rules] == ["braille", "fgvc\\_aircraft"]
    code, notes = text.split(r"\end{tabular}")
    assert code.isascii() and all(line.startswith("% ") for line in notes.split("\n") if line)


def test_latex_has_real_minus_signs_in_differences(put, lines):
    full(put, "eurosat", backbone="ViT-B/16")
    assert "$-$4.05" in table(BASE2NEW, lines(), "latex") and "ViT$" not in table(BASE2NEW, lines(), "latex")


def test_markdown_has_bold_means_and_text_has_none(put, lines):
    full(put)
    assert "**93.00** ± 3.61" in table(BASE2NEW, lines(), "markdown") and "**" not in table(BASE2NEW, lines())


def test_a_test_of_one_class_has_no_figure_and_its_dataset_no_average(put, lines, shown):
    one = {"metrics": {"accuracy": 100.0, "per_class": {"dog": {"n": 9, "correct": 9, "accuracy": 100.0}}}}
    put("base2new/train_base", "pets", "RPO", 1, 90.0)
    put("base2new/test_new", "pets", "RPO", 1, 100.0, **one)
    pair(put, "digits", "RPO", 1, 80.0, 60.0)
    pair(put, "braille", "RPO", 1, 60.0, 40.0)
    rows = {row[0]: row[1:] for row in shown()}
    assert rows["pets"] == ["RPO", "90.00", "one class", "one class", "1"]
    assert rows["average"] == ["RPO", "70.00", "50.00", f"{h(70, 50):.2f}", "1"]
    assert table(BASE2NEW, lines()).count("one class: tested on images of a single class") == 1
    assert "pets (new)" in table(BASE2NEW, lines())


def test_a_target_of_one_class_is_not_in_the_mean_of_targets(put, shown):
    one = {"metrics": {"accuracy": 100.0, "per_class": {"dog": {"n": 9, "correct": 9, "accuracy": 100.0}}}}
    put("train_source", "letters", "RPO", 1, 90.0)
    put("cross_dataset/test_braille", "letters", "RPO", 1, 50.0)
    put("cross_dataset/test_pets", "letters", "RPO", 1, 100.0, **one)
    assert shown(PROTOCOLS["cross_dataset"]) == [["letters", "RPO", "90.00", "50.00", "one class", "50.00", "1"]]


def test_a_published_average_needs_the_same_datasets(put, lines):
    names = ["imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft"]
    names += ["sun397", "dtd", "eurosat"]
    for name in names:
        pair(put, name, "MaPLe", 1, 80.0, 70.0, backbone="ViT-B/16")
    assert "82.28 / 75.14 / 78.55" not in table(BASE2NEW, lines())
    pair(put, "ucf101", "MaPLe", 1, 80.0, 70.0, backbone="ViT-B/16")
    assert "82.28 / 75.14 / 78.55" in table(BASE2NEW, lines())


def test_figures_of_one_config_are_not_those_of_another(put, lines):
    released, own = "vit_b16_ep50_ctxv1", "vit_b16_ep50"
    for config in (released, own):
        put("train_source", "imagenet", "CoOp", 1, 72.0, config=config, backbone="ViT-B/16")
        put("domain_generalization/test_imagenet_a", "imagenet", "CoOp", 1, 50.0, config=config, backbone="ViT-B/16")
    text = table(PROTOCOLS["domain_generalization"], lines(PROTOCOLS["domain_generalization"]))
    rows = {config: next(line for line in text.splitlines() if f"({config})" in line) for config in (released, own)}
    assert "49.71" in rows[released] and "49.71" not in rows[own]


def test_a_single_seed_is_compared_in_the_papers_deviations(put, lines):
    for stage, accuracy in (("train_base", 50.0), ("test_new", 33.0)):
        row = {"config": "main_K24,K=4", "shots": 1, "backbone": "ViT-B/16", "subsample": SUBSAMPLE[stage]}
        put(f"variance/{stage}", "fgvc_aircraft", "RPO", 1, accuracy, **row)
    text = table(PROTOCOLS["variance"], lines(PROTOCOLS["variance"]))
    assert "32.36 ± 3.39" in text and "+0.64 (+0.2 sd)" in text


def test_the_summary_files_hold_every_figure(put, tmp_path):
    full(put)
    put("base2new/train_base", "digits", "CoOp", 1, 70.0)
    write_summary(BASE2NEW, tmp_path)

    summary = json.loads((tmp_path / "base2new" / "summary.json").read_text())
    rows = {row["trainer"]: row for row in summary["rows"]}
    assert rows["RPO"]["new"] == {
        "mean": 60.0,
        "deviation": 10.0,
        "n": 3,
        "missing": 0,
        "seeds": {"1": 50.0, "2": 60.0, "3": 70.0},
    }
    assert rows["ZeroshotCLIP"]["base"]["deviation"] is None
    assert rows["CoOp"]["new"]["mean"] is None and rows["CoOp"]["new"]["missing"] == 1 and rows["CoOp"]["H"] is None

    with open(tmp_path / "base2new" / "summary.csv", newline="") as file:
        table_rows = {row["trainer"]: row for row in csv.DictReader(file)}
    assert float(table_rows["RPO"]["base_mean"]) == 93.0 and table_rows["RPO"]["new_n"] == "3"
    assert table_rows["CoOp"]["new_mean"] == "" and table_rows["CoOp"]["H"] == ""
