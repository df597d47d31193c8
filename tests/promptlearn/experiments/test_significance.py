import itertools
from dataclasses import replace

import numpy as np
import pytest

from basics import UserError
from promptlearn.experiments import PROTOCOLS
from promptlearn.experiments.protocols import Row
from promptlearn.experiments.results_table import Line, at_equal_shots, method_namer
from promptlearn.experiments.significance import (
    ENOUGH,
    compare,
    friedman,
    holm,
    interval,
    needed,
    resampling_weights,
    scores_of,
    wilcoxon,
)
from promptlearn.experiments.significance_text import statistics_text


def keyed(*scores):
    """Return the scores of one method on as many datasets, with one seed each."""
    return {f"set{i}": {1: score} for i, score in enumerate(scores)}


def line(trainer, dataset, values, column="base", shots=16):
    row = Row(dataset, trainer, "tiny", shots)
    return Line(row, method_namer([row])(row), {column: dict(enumerate(values, start=1))}, seeds=len(values))


def test_seeds_that_both_have_are_averaged_before_datasets():
    scores = {"a": {"x": {1: 5.0, 2: 7.0, 3: 9.0}, "y": {1: 1.0}}, "b": {"x": {2: 4.0, 3: 4.0}, "y": {1: 2.0, 9: 0.0}}}
    [found] = compare(scores)
    assert (found.n, found.difference) == (2, ((3.0 + 5.0) / 2 - 1.0) / 2)
    [found] = compare({"a": {"x": {1: 5.0}}, "b": {"x": {2: 4.0}}})
    assert (found.n, found.difference) == (0, None)  # other training images


def test_the_zero_shot_score_counts_once_and_is_paired_with_every_seed():
    lines = [line("ZeroshotCLIP", "x", [50.0], shots=None), line("RPO", "x", [60.0, 61.0, 62.0])]
    scores = scores_of(lines, "base")
    assert scores["zero-shot CLIP"] == {"x": {None: 50.0}}
    [found] = compare(scores)
    assert (found.n, found.difference) == (1, -11.0)


def every_sign(differences):
    """Compute Wilcoxon's exact two-sided p-value from every assignment of signs; no ties or zeros."""
    ranks = np.abs(differences).argsort().argsort() + 1
    observed = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    sums = [
        sum(r for r, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product([0, 1], repeat=len(ranks))
    ]
    return min(1.0, 2 * np.mean([value <= observed for value in sums]))


@pytest.mark.parametrize("seed", range(3))
def test_wilcoxons_p_value_is_exact(seed):
    differences = np.random.default_rng(seed).normal(0.5, 1.0, size=9)
    assert wilcoxon(differences) == pytest.approx(every_sign(differences))


def test_equal_scores_do_not_differ_significantly():
    assert wilcoxon(np.zeros(8)) == 1.0
    assert interval([np.zeros(1)] * 8) == (0.0, 0.0)


def test_holms_correction_is_stepwise_and_monotone():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("comparisons, pairs", [(1, 6), (8, 9), (36, 11)])
def test_the_needed_number_of_pairs_is_the_smallest_that_can_pass(comparisons, pairs):
    assert needed(comparisons) == pairs
    all_positive = np.arange(1.0, pairs + 1)
    assert wilcoxon(all_positive) * comparisons <= 0.05 < wilcoxon(all_positive[1:]) * comparisons


def test_too_few_datasets_give_no_p_value():
    [found] = compare({"a": keyed(1.0, 2.0, 3.0), "b": keyed(0.0, 0.0, 0.0)})
    assert found.p is None and found.difference == 2.0 and found.interval is None
    [found] = compare({"a": {"x": dict(enumerate(range(1, 21)))}, "b": {"x": dict.fromkeys(range(20), 0.0)}})
    assert found.p is None and found.n == 1  # twenty seeds are one case
    found = compare({"a": keyed(*range(6)), "b": keyed(*range(6)), "c": keyed(*[5.0] * 6)})
    assert all(c.p is None and c.interval for c in found)  # enough for one comparison, too few for three
    [found] = compare({"a": keyed(1.0), "b": {}})
    assert found.n == 0 and found.difference is None


def test_untestable_pairs_do_not_count_for_holm():
    scores = {"a": keyed(*range(20)), "b": keyed(*(x - 1 - 0.01 * x for x in range(20))), "c": keyed(0.0, 1.0)}
    found = {(c.a, c.b): c.p for c in compare(scores)}
    assert found["a", "b"] == pytest.approx(2 / 2**20) and found["a", "c"] is None


def hierarchical(rng, datasets, seeds, mean=1.0):
    """Draw differences (datasets, seeds) that vary more between datasets than within."""
    return mean + rng.normal(0, 2.0, size=(datasets, 1)) + rng.normal(0, 1.0, size=(datasets, seeds))


def test_the_interval_is_deterministic_and_has_its_nominal_coverage():
    rng = np.random.default_rng(0)
    samples = [hierarchical(rng, 40, 3) for _ in range(60)]
    assert interval(list(samples[0])) == interval(list(samples[0]))
    covered = sum(low <= 1.0 <= high for low, high in (interval(list(each)) for each in samples))
    assert 52 <= covered <= 60  # 95 % of 60 are 57


def test_resamples_draw_datasets_then_seeds():
    rng = np.random.default_rng(1)
    datasets = [rng.normal(i, 2.0, size=n) for i, n in enumerate((3, 1, 10, 3, 2, 5, 3))]
    drawn = []
    for _ in range(20000):  # plainly
        chosen = [datasets[i] for i in rng.integers(len(datasets), size=len(datasets))]
        drawn.append(np.mean([rng.choice(own, size=len(own)).mean() for own in chosen]))
    weights = resampling_weights(tuple(map(len, datasets)))
    assert np.allclose(weights.sum(axis=1), 1.0)
    means = weights @ np.concatenate(datasets)
    for share in (0.025, 0.25, 0.5, 0.75, 0.975):
        assert np.quantile(means, share) == pytest.approx(np.quantile(drawn, share), abs=0.07)


def test_few_datasets_need_many_seeds_for_an_interval_which_holds_for_them_only():
    few = [np.arange(ENOUGH) + 0.0, np.arange(ENOUGH) + 100.0]
    low, high = interval(few)
    assert 50.0 < low < 52.5 < high < 55.0  # the two datasets are not resampled
    assert interval([few[0], few[1][:-1]]) is None and interval([]) is None


def test_one_method_is_compared_with_all_others():
    scores = {name: keyed(1.0, 2.0) for name in "abc"}
    assert [(c.a, c.b) for c in compare(scores, "b")] == [("b", "a"), ("b", "c")]


# Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets (2006), table 6: AUC of C4.5 with tuned m, cf.
AUC = {
    "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957],
    "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978],
    "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.9751, 0.946],
    "C4.5+m+cf": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975, 0.970],
}


def test_ranks_and_critical_difference_match_demsars_example():
    found = friedman({name: keyed(*values) for name, values in AUC.items()})
    assert found.n == 14
    assert {name: round(rank, 3) for name, rank in found.ranks.items()} == {
        "C4.5+m+cf": 1.964,
        "C4.5+m": 2.0,
        "C4.5+cf": 2.893,
        "C4.5": 3.143,
    }
    assert found.critical_difference == pytest.approx(2.569 * (4 * 5 / (6 * 14)) ** 0.5, abs=0.001)
    assert found.p < 0.05
    assert found.indistinct == [["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]]


def test_indistinct_methods_are_listed_in_the_largest_sets():
    rng = np.random.default_rng(0)
    scores = {
        name: keyed(*(level + rng.normal(0, 0.1, size=30))) for name, level in zip("abcd", [9, 9.01, 5, 1], strict=True)
    }
    found = friedman(scores)
    assert {frozenset(names) for names in found.indistinct} == {frozenset("ab")} and found.p < 1e-6


def test_only_datasets_that_all_methods_have_are_ranked():
    scores = {"a": keyed(*range(8)), "b": keyed(*range(1, 9)), "c": keyed(*range(5, 11))}
    assert friedman(scores).n == ENOUGH


def test_seeds_are_averaged_before_methods_are_ranked():
    better = {f"set{i}": {1: 3.0, 2: 0.0} for i in range(ENOUGH)}  # better with one seed, worse on average
    scores = {"a": better, "b": keyed(*[2.0] * ENOUGH), "c": keyed(*[1.0] * ENOUGH)}
    assert friedman(scores).ranks == {"a": 1.0, "b": 2.0, "c": 3.0}  # the seed that all have
    scores = {
        name: {dataset: of | ({2: of[1]} if 2 not in of else {}) for dataset, of in own.items()}
        for name, own in scores.items()
    }
    assert friedman(scores).ranks == {"b": 1.0, "a": 2.0, "c": 3.0}


@pytest.mark.parametrize(
    "scores", [{}, {"a": keyed(*range(9)), "b": keyed(*range(9))}, {name: keyed(*range(5)) for name in "abc"}]
)
def test_two_methods_or_five_datasets_have_no_ranks(scores):
    assert friedman(scores) is None


def test_equal_methods_do_not_differ():
    found = friedman({name: keyed(*range(ENOUGH)) for name in "abc"})
    assert found.p == 1.0 and len(found.indistinct) == 1


def several(methods, datasets, seeds, shots=16, column="base"):
    """Return lines with scores around each method's level."""
    rng = np.random.default_rng(0)
    places = [f"set{i}" for i in range(datasets)]
    return [
        line(name, place, level + rng.normal(0, 0.1, size=seeds), column, shots)
        for name, level in methods.items()
        for place in places
    ]


def test_the_text_reports_too_little_data_once():
    lines = several({"RPO": 9.0, "CoOp": 5.0, "VPT": 6.0}, datasets=2, seeds=3)
    lines = [replace(each, columns=each.columns | {"new": each.columns["base"]}) for each in lines]
    lines = [replace(each, columns=each.columns | {"H of seeds": each.columns["base"]}) for each in lines]
    text = statistics_text(PROTOCOLS["base2new"], lines)
    assert text.count("RPO - CoOp") == 3 and "Statistics of new, 16 shots" in text
    assert text.count("too few datasets: 7 needed for 3 comparisons, got at most 2") == text.count("too few") == 1
    assert text.count("no ranks: Friedman's test needs 3 methods, and 6 datasets") == text.count("Friedman") == 1
    assert "interval (bootstrap)" not in text and "Wilcoxon" not in text  # no empty columns
    with pytest.raises(UserError, match="expected a method with results .RPO, CoOp, VPT., got 'LP'"):
        statistics_text(PROTOCOLS["base2new"], lines, against="LP")


def test_methods_are_compared_at_equal_shots_only():
    lines = several({"RPO": 9.0, "CoOp": 5.0}, datasets=2, seeds=2, shots=4)
    lines += several({"RPO": 9.5, "VPT": 6.0}, datasets=2, seeds=2, shots=16)
    groups = at_equal_shots([*lines, *several({"ZeroshotCLIP": 1.0}, datasets=2, seeds=1, shots=None)])
    names = {shots: sorted({line.method for line in own}) for shots, own in groups.items()}
    assert names == {"4 shots": ["CoOp", "RPO", "zero-shot CLIP"], "16 shots": ["RPO", "VPT", "zero-shot CLIP"]}
    found = compare(scores_of(groups["16 shots"], "base"))
    assert [(pair.a, pair.b) for pair in found] == [
        ("RPO", "VPT"),
        ("RPO", "zero-shot CLIP"),
        ("VPT", "zero-shot CLIP"),
    ]


def test_a_method_without_an_answer_does_not_keep_the_others_from_being_compared_and_ranked():
    lines = several({"RPO": 9.0, "CoOp": 5.0, "VPT": 6.0}, datasets=7, seeds=2)
    for i in range(7):
        missing = line("TaskRes", f"set{i}", [])
        lines.append(replace(missing, not_applicable=frozenset({"base"})))
    scores = scores_of(lines, "base")
    assert list(scores) == ["RPO", "CoOp", "VPT"]
    assert friedman(scores).n == 7 and all(pair.p is not None for pair in compare(scores))
    assert "TaskRes" in scores_of([*lines, line("TaskRes", "set7", [])], "base")  # a run that is not there yet


def test_the_text_marks_significant_differences():
    lines = several({"RPO": 9.0, "CoOp": 5.0, "LP": 5.0}, datasets=12, seeds=2, shots=None, column="1 shot")
    text = statistics_text(PROTOCOLS["few_shot"], lines)
    marked = [row.split("  ")[0] for row in text.splitlines() if row.endswith(" *")]
    assert marked == ["RPO - CoOp", "RPO - LP"]
    assert "no significant difference: " in text and "little data" not in text and "too few" not in text
    assert "9,999 resamples" in text and "Statistics of 1 shot\n" in text
