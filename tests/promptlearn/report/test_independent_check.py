"""Every figure of `dassl results` and of the report, recomputed plainly from results.json and predictions.csv.

Nothing here uses the computations of the tables and of the report; only what they show is read.
"""

import csv
import io
import itertools
import json
import math
import random
import re
import statistics
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from promptlearn.cli import main
from promptlearn.experiments import PROTOCOLS
from promptlearn.report import Comparison
from promptlearn.report.page import facts, parts_of
from tests.made_up_runs import MadeUpRuns

ZERO = "ZeroshotCLIP"
Q_05 = {3: 2.343, 4: 2.569}  # Demsar (2006), table 5(a), by the number of methods
COSTS = {
    "trained parameters": lambda result: result["trained_parameters"],
    "GFLOP per training step": lambda result: result["gflop"]["training_step"],
    "seconds of training": lambda result: result["seconds"]["train"],
    "peak memory of the process, MiB": lambda result: result["peak_memory_mib"],
}
BASE_AND_NEW = {"base2new/train_base": "base", "base2new/test_new": "new"}
SOURCE = {"train_source": "source", "cross_dataset/test_dtd": "dtd", "cross_dataset/test_eurosat": "eurosat"}


class Check:
    """Compares what is shown with what is expected, and counts."""

    def __init__(self):
        self.count, self.largest = 0, 0.0

    def equal(self, shown, expected, where):
        assert shown == expected, where
        self.count += 1

    def near(self, shown, expected, where, tolerance=1e-9):
        shown = float(shown)
        assert shown == pytest.approx(expected, abs=tolerance), where
        self.count, self.largest = self.count + 1, max(self.largest, abs(shown - expected))


class Runs:
    """The finished runs in a folder: dicts with stage, dataset, shots, trainer, seed, result, and predictions."""

    def __init__(self, output, protocol, stages):
        self.output, self.protocol, self.stages = output, protocol, stages
        self.all, self.folders = [], []
        for folder in sorted(output.glob("**/seed*")):
            *stage, dataset, shots, trainer, _, seed = folder.relative_to(output).parts
            known = {"stage": stages["/".join(stage)], "dataset": dataset, "trainer": trainer}
            known |= {"shots": int(shots.removeprefix("shots_")), "seed": int(seed.removeprefix("seed"))}
            self.folders.append(known)
            if (folder / "results.json").exists():
                predictions = list(csv.DictReader(io.StringIO((folder / "predictions.csv").read_text("utf-8"))))
                result = json.loads((folder / "results.json").read_text())
                self.all.append(known | {"result": result, "predictions": predictions})
        self.datasets = list(dict.fromkeys(run["dataset"] for run in self.folders))
        self.shots = sorted({run["shots"] for run in self.folders if run["trainer"] != ZERO})
        self.trainers = sorted({run["trainer"] for run in self.folders} - {ZERO})
        self.columns = list(stages.values())

    def of(self, trainer, dataset, stage, shots):
        """Return {seed: run}; zero-shot CLIP is the same with any shots and seed."""
        own = [r for r in self.all if (r["trainer"], r["dataset"], r["stage"]) == (trainer, dataset, stage)]
        if trainer == ZERO:
            return {0: own[0]} if own else {}
        return {run["seed"]: run for run in own if run["shots"] == shots}

    def accuracies(self, trainer, dataset, stage, shots):
        return {
            seed: run["result"]["metrics"]["accuracy"] for seed, run in self.of(trainer, dataset, stage, shots).items()
        }

    def seeds(self, trainer, dataset, shots):
        """Return how many seeds were planned."""
        if trainer == ZERO:
            return 1
        return len(
            {r["seed"] for r in self.folders if (r["trainer"], r["dataset"], r["shots"]) == (trainer, dataset, shots)}
        )

    def line(self, trainer, dataset, shots):
        """Return {column: {seed: accuracy}} of a line of the table, and the number of seeds planned."""
        if dataset == "average":
            lines, planned = zip(*(self.line(trainer, each, shots) for each in self.datasets), strict=True)
            complete = all(len(of) == n for line, n in zip(lines, planned, strict=True) for of in line.values())
            columns = {
                column: {seed: sum(line[column][seed] for line in lines) / len(lines) for seed in lines[0][column]}
                if complete
                else {}
                for column in lines[0]
            }
            return columns, planned[0]
        stages = self.columns
        if self.protocol == "few_shot":
            columns = {column_of(n): self.accuracies(trainer, dataset, "all", n) for n in self.shots}
            return columns, max(self.seeds(trainer, dataset, n) for n in self.shots)
        columns = {stage: self.accuracies(trainer, dataset, stage, shots) for stage in stages}
        if self.protocol == "cross_dataset":
            both = set.intersection(*(set(columns[stage]) for stage in stages[1:]))
            columns["mean of targets"] = {s: sum(columns[t][s] for t in stages[1:]) / len(stages[1:]) for s in both}
        return columns, self.seeds(trainer, dataset, shots)

    def measure(self, trainer, dataset, shots):
        """Return the figure that ranks methods as a whole; None if a run is missing."""
        columns, planned = self.line(trainer, dataset, shots)
        if self.protocol == "base2new":
            return h_of(columns, planned)
        values = columns[column_of(shots) if self.protocol == "few_shot" else "mean of targets"]
        return mean(values.values()) if len(values) == planned else None


def column_of(shots):
    return f"{shots} shot" + "s" * (shots > 1)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def deviation(values):
    return math.sqrt(sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1))


def harmonic(base, new):
    return 2 * base * new / (base + new)


def h_of(columns, planned):
    if any(len(columns[name]) < planned for name in ("base", "new")):
        return None
    return harmonic(mean(columns["base"].values()), mean(columns["new"].values()))


def shown_name(trainer):
    return "zero-shot CLIP" if trainer == ZERO else trainer


def vary(folder, rng):
    """Give a made-up run figures of its own; zero-shot CLIP has the same in each of its runs."""
    path = folder / "results.json"
    result = json.loads(path.read_text())
    if result["trainer"] == ZERO:
        rng = random.Random("/".join(folder.parts[-5:-4]) + result["subsample"])
    metrics = result["metrics"]
    metrics["accuracy"], metrics["ece"] = rng.uniform(30, 95), rng.uniform(1, 20)
    metrics["per_class"] = {
        name: of_class | {"accuracy": rng.uniform(0, 100)} for name, of_class in metrics["per_class"].items()
    }
    result["trained_parameters"] = rng.randrange(10**3, 10**5)
    result["gflop"] = {"training_step": rng.uniform(1, 9), "test_image": rng.uniform(0.1, 0.9)}
    result["seconds"] = {"train": rng.uniform(1, 30), "per_epoch": rng.uniform(1, 9)}
    result["peak_memory_mib"] = rng.uniform(900, 999)
    path.write_text(json.dumps(result))
    rows = list(csv.DictReader(io.StringIO((folder / "predictions.csv").read_text("utf-8"))))
    names = {row["label"]: row["classname"] for row in rows}
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    for row in rows:
        predicted = rng.choice(list(names))
        confidence = round(rng.uniform(0.5, 1), 6)
        writer.writerow(
            row | {"predicted": predicted, "predicted_classname": names[predicted], "confidence": confidence}
        )
    (folder / "predictions.csv").write_text(text.getvalue(), encoding="utf-8")
    if (folder / "metrics.csv").exists():
        (folder / "metrics.csv").write_text(f"epoch,loss\n1,9\n2,{metrics['accuracy'] / 10}\n")


SCENARIOS = {  # protocol, stages, datasets, shots, seeds, runs that are missing
    "one of each": ("base2new", BASE_AND_NEW, 1, (16,), (1,), 0),
    "several seeds": ("base2new", BASE_AND_NEW, 1, (16,), (1, 2, 3), 0),
    "several shots": ("base2new", BASE_AND_NEW, 1, (4, 16), (1, 2), 0),
    "several datasets": ("base2new", BASE_AND_NEW, 8, (16,), (1, 2), 0),
    "several of each": ("base2new", BASE_AND_NEW, 8, (4, 16), (1, 2, 3), 0),
    "missing runs": ("base2new", BASE_AND_NEW, 3, (4, 16), (1, 2, 3), 9),
    "few shots": ("few_shot", {"few_shot/train": "all"}, 2, (1, 4, 16), (1, 2), 0),
    "few shots, missing runs": ("few_shot", {"few_shot/train": "all"}, 2, (1, 4, 16), (1, 2, 3), 5),
    "a transfer": ("cross_dataset", SOURCE, 1, (16,), (1, 2), 0),
}


SLOW = ("several seeds", "several of each", "few shots")  # parts of them are in others


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SCENARIOS]
)
def scenario(request, tmp_path_factory):
    """Return (runs, sections of the page, facts of the page)."""
    protocol, stages, datasets, shots, seeds, missing = SCENARIOS[request.param]
    output, rng = tmp_path_factory.mktemp("output"), random.Random(request.param)
    made = MadeUpRuns(output)
    for (stage, column), number in itertools.product(stages.items(), range(datasets)):
        subsample = column if protocol == "base2new" else "all"
        for n in shots:  # zero-shot CLIP was run again for other shots
            vary(made.run(stage, f"set{number}", ZERO, 1, subsample, shots=n), rng)
            for trainer, seed in itertools.product(("CoOp", "RPO", "VPT"), seeds):
                vary(made.run(stage, f"set{number}", trainer, seed, subsample, shots=n), rng)
    trained = sorted(path for path in output.rglob("results.json") if ZERO not in path.parts)
    for path in rng.sample(trained, missing):
        path.unlink()
    comparison = Comparison(PROTOCOLS[protocol], output)
    parts = [part for part in parts_of(comparison, "set0") if part.dataset in ("", "set0")]
    sections = {section.title: section for part in parts for section in part.sections}
    return read(output, protocol, stages), sections, dict(facts(comparison))


def read(output, protocol, stages):
    """Read the runs that count: a test counts only with its training."""
    runs = Runs(output, protocol, stages)
    if len(stages) > 1:
        trained = {
            (r["dataset"], r["trainer"], r["shots"], r["seed"]) for r in runs.all if r["stage"] == runs.columns[0]
        }
        key = ("dataset", "trainer", "shots", "seed")
        runs.all = [r for r in runs.all if r["trainer"] == ZERO or tuple(r[k] for k in key) in trained]
    return runs


@pytest.fixture(scope="module")
def check():
    check = Check()
    yield check
    print(f"\n{check.count} figures, largest difference {check.largest:.2g}")


def lines_of(runs):
    """Yield (dataset, trainer, shots) of each line of the table."""
    several = len(runs.datasets) > 1
    for dataset in [*runs.datasets, *(["average"] if several else [])]:
        yield dataset, ZERO, None
        for trainer in runs.trainers:
            for shots in [None] if runs.protocol == "few_shot" else runs.shots:
                yield dataset, trainer, shots


def expected_figure(runs, dataset, trainer, shots, column):
    """Return (mean, detail) of a figure of the table as shown; None: no figure."""
    columns, planned = runs.line(trainer, dataset, shots)
    if column == "H":
        h = h_of(columns, planned)
        return None if h is None else (h, "")
    values = list(columns[column].values())
    if not values:
        return None
    if len(values) < planned:
        return mean(values), f"{len(values)} of {planned}"
    return mean(values), f"± {deviation(values):.2f}" if len(values) > 1 else ""


def test_the_table_of_results(scenario, check):
    runs, sections, _ = scenario
    [table] = sections["Results"].tables
    figures = {}
    for row in table.rows:
        cells = dict(zip(table.header, row, strict=True))
        shots = cells["shots"].text if "shots" in cells else ""
        figures[cells["dataset"].text, cells["method"].text, shots] = cells
    expected = list(lines_of(runs))
    check.equal(len(figures), len(expected), "lines")
    complete = {}  # (dataset, column) -> (trainer, shots) -> mean
    columns = [name for name in table.header if name not in ("dataset", "method", "shots", "seeds")]
    for dataset, trainer, shots in expected:
        for column in columns:
            found = expected_figure(runs, dataset, trainer, shots, column)
            if found and " of " not in found[1]:
                complete.setdefault((dataset, column), {})[trainer, shots] = round(found[0], 2)
    for dataset, trainer, shots in expected:
        several = len(runs.shots) > 1 and shots
        cells = figures[dataset, shown_name(trainer), str(shots) if several else ""]
        for column in columns:
            where, cell = (dataset, trainer, shots, column), cells[column]
            found = expected_figure(runs, dataset, trainer, shots, column)
            if found is None:
                check.equal(cell.text, "missing", where)
                continue
            check.near(cell.order, found[0], where)
            check.equal((cell.text, cell.detail), (f"{found[0]:,.2f}", found[1]), where)
            rivals = complete.get((dataset, column), {})
            own = rivals.get((trainer, shots))
            others = [
                v
                for (t, n), v in rivals.items()
                if (t, n) != (trainer, shots) and (trainer == ZERO or n in (None, shots))
            ]
            check.equal(cell.best, own is not None and bool(others) and own >= max(others), where)


def test_the_table_as_csv(scenario, check, capsys):
    runs, _, _ = scenario
    assert main(["results", str(runs.output), "--format", "csv"]) == 0
    rows = {(r["dataset"], r["trainer"], r["shots"]): r for r in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    for dataset, trainer, shots in lines_of(runs):
        row = rows[dataset, trainer, "" if shots is None else str(shots)]
        columns, planned = runs.line(trainer, dataset, shots)
        if runs.protocol == "base2new":
            h = h_of(columns, planned)
            check.equal(row["H"] == "", h is None, (dataset, trainer, shots))
            if h is not None:
                check.near(row["H"], h, (dataset, trainer, shots))
            if dataset != "average":
                both = columns["base"].keys() & columns["new"].keys()
                columns["H of seeds"] = {s: harmonic(columns["base"][s], columns["new"][s]) for s in both}
        for column, values in columns.items():
            where, values = (dataset, trainer, shots, column), list(values.values())
            check.equal(
                (row[f"{column}_n"], row[f"{column}_missing"]), (str(len(values)), str(planned - len(values))), where
            )
            if values:
                check.near(row[f"{column}_mean"], mean(values), where)
            if len(values) > 1:
                check.near(row[f"{column}_deviation"], deviation(values), where)


def test_costs_and_calibration_of_the_table(scenario, check, capsys):
    runs, sections, _ = scenario
    assert main(["results", str(runs.output), "--format", "markdown", "--costs", "--calibration"]) == 0
    shown = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in capsys.readouterr().out.splitlines() if "|" in row
    ]
    header, rows = shown[0], {(row[0], row[1]): dict(zip(shown[0], row, strict=True)) for row in shown[2:]}
    assert "ECE" in header
    figures = {
        "parameters": lambda r: r["trained_parameters"],
        "GFLOP/step": lambda r: r["gflop"]["training_step"],
        "GFLOP/image": lambda r: r["gflop"]["test_image"],
    }
    few_shot = runs.protocol == "few_shot"
    [calibration] = sections["Calibration"].tables
    in_report = [dict(zip(calibration.header, row, strict=True)) for row in calibration.rows]
    in_report = {
        (c["dataset"].text, c["method"].text, c["shots"].order if "shots" in c else None): c["ECE"] for c in in_report
    }
    for dataset, trainer, shots in lines_of(runs):
        name = shown_name(trainer) + (f" ({column_of(shots)})" if shots and len(runs.shots) > 1 else "")

        def median(figure, shots, trainer=trainer, dataset=dataset):
            """Return the median over the runs of the first stage; of an average, the median over the datasets."""
            medians = []
            for each in runs.datasets if dataset == "average" else [dataset]:
                values = [figure(run["result"]) for run in runs.of(trainer, each, runs.columns[0], shots).values()]
                medians += [statistics.median(values)] if values else []
            return statistics.median(medians) if medians else None

        for column, figure in figures.items():
            expected = median(figure, runs.shots[-1] if few_shot else shots)
            check.equal(rows[dataset, name][column], "" if expected is None else f"{expected:,.6g}", (dataset, name))
        ece = median(lambda r: r["metrics"]["ece"], runs.shots[0] if few_shot else shots)
        check.equal(rows[dataset, name]["ECE"], "" if ece is None else f"{ece:.2f}", (dataset, name))
        own = in_report[dataset, shown_name(trainer), shots if len(runs.shots) > 1 else None]
        check.equal(own.order, ece, (dataset, name))


def alts(sections, title):
    return {chart.title: chart.alt for chart in [*sections[title].charts, *sections[title].more]}


def test_base_and_new(scenario, check):
    runs, sections, _ = scenario
    if runs.protocol != "base2new":
        return
    shown = alts(sections, "Base vs. new")
    for dataset in [*runs.datasets, *(["average"] if len(runs.datasets) > 1 else [])]:
        alt = shown[f"Base and new: {dataset}"]
        for trainer in [ZERO, *runs.trainers]:
            columns, planned = runs.line(trainer, dataset, runs.shots[-1])
            h, name = h_of(columns, planned), shown_name(trainer)
            if h is None:
                check.equal(f"{name}: base" in alt, False, alt)
                continue
            base, new = (mean(columns[column].values()) for column in ("base", "new"))
            check.equal(f"{name}: base {base:.1f}, new {new:.1f}, H {h:.1f}" in alt, True, (alt, trainer, base, new, h))


def test_few_shot_curves(scenario, check):
    runs, sections, _ = scenario
    if len(runs.shots) == 1:
        assert "Few-shot curves" not in sections
        return
    shown = alts(sections, "Few-shot curves")
    columns = [*runs.columns, *(["H of seeds"] if runs.protocol == "base2new" else [])]

    def by_seed(trainer, dataset, column, n):
        """Return {seed: figure} of the seeds that have all that goes into it."""
        if dataset == "average":
            parts, form = [by_seed(trainer, each, column, n) for each in runs.datasets], mean
        elif column == "H of seeds":
            parts, form = (
                [runs.accuracies(trainer, dataset, stage, n) for stage in runs.columns],
                lambda x: harmonic(*x),
            )
        else:
            return runs.accuracies(trainer, dataset, column, n)
        return {seed: form([part[seed] for part in parts]) for seed in parts[0] if all(seed in part for part in parts)}

    for column, dataset in itertools.product(
        columns, [*runs.datasets, *(["average"] if len(runs.datasets) > 1 else [])]
    ):
        alt = shown.pop(f"Few shots: {dataset}, {column}")
        for trainer in runs.trainers:
            of = {n: by_seed(trainer, dataset, column, n).values() for n in runs.shots}
            text = ", ".join(f"{mean(values):.1f} with {n}" for n, values in of.items() if values)
            check.equal(f"{trainer}: {text}" in alt if text else f"{trainer}:" not in alt, True, (alt, text))
        [zero] = by_seed(ZERO, dataset, column, None).values()
        check.equal(f"zero-shot CLIP: {zero:.1f};" in alt or f"zero-shot CLIP: {zero:.1f}." in alt, True, (alt, zero))
    check.equal(shown, {}, "curves")


def test_the_spread_over_the_seeds(scenario, check):
    runs, sections, _ = scenario
    seeds = max(runs.seeds(trainer, "set0", n) for trainer in runs.trainers for n in runs.shots)
    assert ("Spread over the seeds" in sections) == (seeds > 1)
    if seeds > 1:
        shown = alts(sections, "Spread over the seeds")
        for dataset, stage in itertools.product(runs.datasets, runs.columns):
            alt = shown.pop(f"Spread over the seeds: {dataset}, {stage}")
            for trainer in [ZERO, *runs.trainers]:
                values = list(runs.accuracies(trainer, dataset, stage, runs.shots[-1]).values())
                if values:
                    low, high = min(values), max(values)
                    text = f"{shown_name(trainer)}, {stage}: {low:.1f} to {high:.1f}, n = {len(values)}"
                    check.equal(text in alt, True, (alt, text))
        check.equal(shown, {}, "spread")


def test_accuracy_and_its_costs(scenario, check):
    runs, sections, _ = scenario
    dataset = "average" if len(runs.datasets) > 1 else "set0"
    heights = {trainer: runs.measure(trainer, dataset, runs.shots[-1]) for trainer in [ZERO, *runs.trainers]}
    heights = {trainer: height for trainer, height in heights.items() if height is not None}
    if len(heights.keys() - {ZERO}) < 2:
        assert "Accuracy and its costs" not in sections
        return
    measures = {"base2new": "H", "few_shot": column_of(runs.shots[-1]), "cross_dataset": "mean of targets"}
    shown = alts(sections, "Accuracy and its costs")
    check.equal(shown.keys(), {f"{measures[runs.protocol]} against {name}" for name in COSTS}, "charts of costs")
    for (name, cost), (trainer, height) in itertools.product(COSTS.items(), heights.items()):
        alt = shown[f"{measures[runs.protocol]} against {name}"]
        if trainer == ZERO:
            check.equal(
                f"zero-shot CLIP: {height:.2f} %;" in alt or f"zero-shot CLIP: {height:.2f} %." in alt, True, alt
            )
            continue
        trained = [runs.of(trainer, each, runs.columns[0], runs.shots[-1]).values() for each in runs.datasets]
        middle = statistics.median(cost(run["result"]) for own in trained for run in own)
        text = f"{trainer}: {height:.2f} % with {middle:,.6g}"
        check.equal(f"{text};" in alt or f"{text}." in alt, True, (alt, text))


def score_columns(runs):
    """Return the columns that are tested: name -> (trainer, dataset, shots) -> {seed: score}."""
    if runs.protocol == "few_shot":
        return {column_of(n): lambda t, d, _, n=n: runs.accuracies(t, d, "all", n) for n in runs.shots}
    if runs.protocol == "cross_dataset":
        return {"mean of targets": lambda t, d, n: runs.line(t, d, n)[0]["mean of targets"]}

    def of_seeds(trainer, dataset, shots):
        columns = runs.line(trainer, dataset, shots)[0]
        both = columns["base"].keys() & columns["new"].keys()
        return {seed: harmonic(columns["base"][seed], columns["new"][seed]) for seed in both}

    plain = {stage: lambda t, d, n, stage=stage: runs.accuracies(t, d, stage, n) for stage in runs.columns}
    return plain | {"H of seeds": of_seeds}


def shared(of_methods):
    """Return the scores of several methods on one dataset, at the seeds that all have; zero-shot CLIP has seed 0."""
    seeds = sorted(set.intersection(*(set(of) for of in of_methods if set(of) != {0})))
    return [[of.get(seed, of.get(0)) for seed in seeds] for of in of_methods]


def resampled(datasets, rng):
    """Return a 95% interval of the mean, by resampling datasets, then seeds, one by one."""
    means = []
    for _ in range(1000):
        drawn = [datasets[i] for i in rng.integers(len(datasets), size=len(datasets))]
        means.append(mean(rng.choice(own, len(own)).mean() for own in drawn))
    return np.quantile(means, [0.025, 0.975])


def exact_wilcoxon(differences):
    """Return the two-sided p-value of the signed-rank test, from all signs; no ties."""
    ranks = {d: rank for rank, d in enumerate(sorted(differences, key=abs), start=1)}
    observed = min(sum(r for d, r in ranks.items() if d > 0), sum(r for d, r in ranks.items() if d < 0))
    sums = [
        sum(itertools.compress(range(1, len(ranks) + 1), signs))
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    return min(1.0, 2 * sum(value <= observed for value in sums) / len(sums))


def test_differences_and_ranks(scenario, check):
    runs, sections, _ = scenario
    section = sections["Are the differences real?"]
    tables = {table.title.removeprefix("All pairs of methods, "): table for table in section.tables}
    shown_alts = {chart.title: chart.alt for chart in section.charts}
    groups = [None] if runs.protocol == "few_shot" else runs.shots
    names = {name: (scores, n) for n in groups for name, scores in score_columns(runs).items()}
    if len(groups) > 1:
        names = {f"{name}, {column_of(n)}": (s, n) for n in groups for name, s in score_columns(runs).items()}
    assert tables.keys() == names.keys()
    rng = np.random.default_rng(5)
    for name, (scores, n) in names.items():
        methods = [ZERO, *runs.trainers]
        of = {trainer: {dataset: scores(trainer, dataset, n) for dataset in runs.datasets} for trainer in methods}
        table = tables[name]
        rows = {(row[0].text, row[1].text): dict(zip(table.header, row, strict=True)) for row in table.rows}
        p_values = {}
        for a, b in itertools.combinations(methods, 2):
            pairs = [shared([of[a][d], of[b][d]]) for d in runs.datasets if of[a][d] and of[b][d]]
            by_dataset = [np.array(x) - np.array(y) for x, y in pairs if x]
            row, where = rows[shown_name(a), shown_name(b)], (name, a, b)
            check.near(row["datasets"].order, len(by_dataset), where)
            means = [own.mean() for own in by_dataset]
            if means:
                check.near(row["mean difference"].order, mean(means), where)
            if len(by_dataset) >= 6:
                low, high = map(float, row["95% interval"].text.split(" to "))
                for shown, expected in zip((low, high), resampled(by_dataset, rng), strict=True):
                    check.near(shown, expected, where, tolerance=0.15 * (high - low))
                check.largest = 0.0 if check.largest > 0.01 else check.largest  # chance
            if len(means) >= 8:  # of six pairs, the smallest p-value is 2 / 2^8 * 6 < 0.05
                p_values[a, b] = exact_wilcoxon(means)
        check.equal("p (Wilcoxon, Holm)" in table.header, bool(p_values), name)
        largest = 0.0
        for number, (pair, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
            largest = max(largest, min(1.0, p * (len(p_values) - number)))
            check.near(rows[tuple(map(shown_name, pair))]["p (Wilcoxon, Holm)"].order, largest, (name, pair))
        complete = [d for d in runs.datasets if all(of[t][d] for t in methods)]
        expected = len(complete) >= 6
        check.equal(f"Friedman's test of {name}, 4 methods" in " ".join(section.text), expected, name)
        if expected:
            means = [[mean(own) for own in shared([of[t][d] for t in methods])] for d in complete]
            ranks = [[1 + sum(other > value for other in row) for value in row] for row in means]
            total, k = len(ranks), len(methods)
            mean_ranks = [mean(column) for column in zip(*ranks, strict=True)]
            statistic = 12 * total / (k * (k + 1)) * (sum(r**2 for r in mean_ranks) - k * (k + 1) ** 2 / 4)
            text = (
                f"Friedman's test of {name}, {k} methods: p = {chi2.sf(statistic, k - 1):.4f}, over {total} datasets."
            )
            check.equal(text in section.text or any(text in each for each in section.text), True, (text, section.text))
            if chi2.sf(statistic, k - 1) <= 0.05:
                alt = shown_alts[f"Critical differences: {name}"]
                for trainer, rank in zip(methods, mean_ranks, strict=True):
                    check.equal(f"{shown_name(trainer)} {rank:.2f}" in alt, True, (alt, trainer, rank))
                difference = Q_05[k] * math.sqrt(k * (k + 1) / (6 * total))
                check.equal(f"Critical difference {difference:.2f}" in alt, True, (alt, difference))
            else:
                check.equal(f"Critical differences: {name}" in shown_alts, False, name)


def test_gains_and_losses_per_class(scenario, check):
    runs, sections, _ = scenario
    [chart] = sections["Gains and losses per class"].charts
    gains = {}
    for stage in runs.columns[:2]:
        [zero] = runs.of(ZERO, "set0", stage, None).values()
        for trainer in runs.trainers:
            own = runs.of(trainer, "set0", stage, runs.shots[-1]).values()
            for name, before in zero["result"]["metrics"]["per_class"].items():
                after = [run["result"]["metrics"]["per_class"][name]["accuracy"] for run in own]
                if after:
                    gains[trainer, stage, name] = mean(after) - before["accuracy"]
    check.equal(f"from {min(gains.values()):+.1f} (" in chart.alt, True, chart.alt)
    check.equal(f"to {max(gains.values()):+.1f} (" in chart.alt, True, chart.alt)
    drawn = re.findall(r">([+-]\d+|0)</text>", chart.svg)
    order = [gains[key] for trainer in runs.trainers for key in gains if key[0] == trainer]
    check.equal(drawn, [f"{gain:+.0f}" if round(gain) else "0" for gain in order], "drawn gains")


def test_learning_curves(scenario, check):
    runs, sections, _ = scenario
    [alt] = alts(sections, "Learning curves").values()
    for trainer in runs.trainers:
        folders = [path.parent for path in runs.output.rglob("metrics.csv") if (path.parent / "results.json").exists()]
        folders = [each for each in folders if each.parts[-5:-2] == ("set0", f"shots_{runs.shots[-1]}", trainer)]
        last = [list(csv.DictReader((each / "metrics.csv").read_text().splitlines()))[-1]["loss"] for each in folders]
        text = f"{trainer}: {mean(map(float, last)):.4g}" if last else f"{trainer}:"
        check.equal(text in alt, bool(last), (alt, text))


def first_runs(runs, stage):
    """Yield the first seed's run of each method on the dataset that is shown in detail."""
    for trainer in [ZERO, *runs.trainers]:
        own = runs.of(trainer, "set0", stage, runs.shots[-1])
        if own:
            yield trainer, own[min(own)]


def test_confusions_and_confidences(scenario, check):
    runs, sections, _ = scenario
    confusion, reliability = alts(sections, "Confusions"), alts(sections, "Are the confidences right?")
    for stage in runs.columns[:2]:
        for trainer, run in first_runs(runs, stage):
            rows = run["predictions"]
            correct = [row["label"] == row["predicted"] for row in rows]
            share = 100 * sum(correct) / len(rows)
            alt = confusion[f"Confusion: set0, {stage}, {shown_name(trainer)}"]
            check.equal(f" {share:.1f}% correct" in alt, True, (alt, share))
            bins = {}
            for row, hit in zip(rows, correct, strict=True):  # (0, 1/15], (1/15, 2/15], ...
                bins.setdefault(math.ceil(float(row["confidence"]) * 15), []).append((float(row["confidence"]), hit))
            gap = sum(abs(sum(c for c, _ in own) - sum(hit for _, hit in own)) for own in bins.values())
            confidence = 100 * mean(float(row["confidence"]) for row in rows)
            alt = reliability[f"Reliability: set0, {stage}, {shown_name(trainer)}"]
            text = f"Expected calibration error {100 * gap / len(rows):.1f}%, mean confidence {confidence:.1f}%, "
            text += f"accuracy {share:.1f}%"
            check.equal(text in alt, True, (alt, text))


def test_the_most_frequent_confusions(scenario, check):
    runs, sections, _ = scenario
    [table] = sections["Confusions"].tables
    last = runs.columns[:2][-1]
    expected = {}
    for trainer, run in first_runs(runs, last):
        total = Counter(row["classname"] for row in run["predictions"])
        for row in run["predictions"]:
            if row["label"] != row["predicted"]:
                key = shown_name(trainer), row["classname"], row["predicted_classname"]
                expected[key] = expected.get(key, 0) + 1
        expected |= {key: (n, 100 * n / total[key[1]]) for key, n in expected.items() if isinstance(n, int)}
    shown = {tuple(cell.text for cell in row[:3]): (row[3].order, row[4].order) for row in table.rows}
    check.equal(shown, expected, "confusions")  # two classes have two pairs, of at most three that are listed
    check.equal(table.title, f"Most frequent confusions, {last}", "title")


def test_every_run_and_the_facts(scenario, check):
    runs, sections, shown = scenario
    [table] = sections["Every run"].tables
    rows = {}
    for row in table.rows:
        cells = {name: cell.order for name, cell in zip(table.header, row, strict=True)}
        rows.setdefault((cells["dataset"], row[1].text, cells["shots"], cells["seed"], cells["tested on"]), []).append(
            cells
        )
    for run in runs.all:
        trained = run["trainer"] != ZERO and run["stage"] == runs.columns[0]
        zero = run["trainer"] == ZERO
        key = (
            run["dataset"],
            shown_name(run["trainer"]),
            *(None if zero else run[each] for each in ("shots", "seed")),
            run["stage"],
        )
        result = run["result"]
        expected = {
            "%": result["metrics"]["accuracy"],
            "images": result["metrics"]["n"],
            "parameters": result["trained_parameters"] if trained else None,
            "GFLOP / step": result["gflop"]["training_step"] if trained else None,
            "GFLOP / image": result["gflop"]["test_image"],
            "train, s": result["seconds"]["train"] if trained else None,
            "s / epoch": result["seconds"]["per_epoch"] if trained else None,
            "MiB": result["peak_memory_mib"],
        }
        for column, value in expected.items():
            for cells in rows[key]:
                check.equal(cells[column], value, (key, column))
    check.equal(sum(map(len, rows.values())), len(runs.all), "rows")
    check.equal(shown["runs"], f"{len(runs.all)} of {len(runs.folders)}", "runs")
    check.equal(shown["shots"], ", ".join(map(str, runs.shots)), "shots")
    check.equal(shown["seeds"], str(len({run["seed"] for run in runs.all if run["trainer"] != ZERO})), "seeds")
    check.equal(shown["methods"], str(1 + len(runs.trainers)), "methods")
    check.equal(len(sections["Every run"].missing), len(runs.folders) - len(runs.all), "missing")


def test_many_figures_were_compared(check):
    assert check.count > 3000 and check.largest < 1e-9
