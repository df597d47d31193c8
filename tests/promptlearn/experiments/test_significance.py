import itertools

import numpy as np
import pytest

from basics import UserError
from promptlearn.experiments import PROTOCOLS
from promptlearn.experiments.protocols import Row
from promptlearn.experiments.results_table import Line, method_namer
from promptlearn.experiments.significance import compare, friedman, holm, interval, needed, scores_of, wilcoxon
from promptlearn.experiments.significance_text import statistics_text


def keyed(*scores):
    """Return the scores of one method on as many datasets, with one seed each."""
    return {(f"set{i}", 1): score for i, score in enumerate(scores)}


def line(trainer, dataset, values, column="base"):
    row = Row(dataset, trainer, "tiny", 16)
    return Line(row, method_namer([row])(row), {column: dict(enumerate(values, start=1))}, seeds=len(values))


def test_pairs_share_dataset_and_seed():
    scores = {"a": {("x", 1): 5.0, ("x", 2): 7.0, ("y", 1): 1.0}, "b": {("x", 2): 4.0, ("y", 1): 2.0, ("y", 9): 0.0}}
    [found] = compare(scores)
    assert (found.n, found.difference) == (2, 1.0)


def test_the_single_zero_shot_score_is_paired_with_every_seed():
    lines = [line("ZeroshotCLIP", "x", [50.0]), line("RPO", "x", [60.0, 61.0, 62.0])]
    scores = scores_of(lines, "base")
    assert scores["zero-shot CLIP"] == {("x", 1): 50.0, ("x", 2): 50.0, ("x", 3): 50.0}
    [found] = compare(scores)
    assert (found.n, found.difference) == (3, -11.0)


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
    assert interval(np.zeros(8)) == (0.0, 0.0)


def test_holms_correction_is_stepwise_and_monotone():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("comparisons, pairs", [(1, 6), (8, 9), (36, 11)])
def test_the_needed_number_of_pairs_is_the_smallest_that_can_pass(comparisons, pairs):
    assert needed(comparisons) == pairs
    all_positive = np.arange(1.0, pairs + 1)
    assert wilcoxon(all_positive) * comparisons <= 0.05 < wilcoxon(all_positive[1:]) * comparisons


def test_too_few_pairs_give_no_p_value():
    [found] = compare({"a": keyed(1.0, 2.0, 3.0), "b": keyed(0.0, 0.0, 0.0)})
    assert found.p is None and found.difference == 2.0 and found.interval is None
    found = compare({"a": keyed(*range(6)), "b": keyed(*range(6)), "c": keyed(*[5.0] * 6)})
    assert all(c.p is None and c.interval for c in found)  # enough for one comparison, too few for three
    [found] = compare({"a": keyed(1.0), "b": {}})
    assert found.n == 0 and found.difference is None


def test_untestable_pairs_do_not_count_for_holm():
    scores = {"a": keyed(*range(20)), "b": keyed(*(x - 1 - 0.01 * x for x in range(20))), "c": keyed(0.0, 1.0)}
    found = {(c.a, c.b): c.p for c in compare(scores)}
    assert found["a", "b"] == pytest.approx(2 / 2**20) and found["a", "c"] is None


def test_the_interval_is_deterministic_and_has_its_nominal_coverage():
    rng = np.random.default_rng(0)
    samples = rng.normal(1.0, 2.0, size=(60, 40))
    assert interval(samples[0]) == interval(samples[0])
    covered = sum(low <= 1.0 <= high for low, high in map(interval, samples))
    assert 50 <= covered <= 60  # 95 % of 60 are 57


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


def test_only_cases_that_all_methods_have_are_ranked():
    scores = {"a": keyed(1.0, 2.0, 3.0), "b": keyed(0.0, 1.0, 2.0), "c": keyed(5.0, 6.0)}
    assert friedman(scores).n == 2


@pytest.mark.parametrize(
    "scores", [{}, {"a": keyed(1.0, 2.0), "b": keyed(1.0, 2.0)}, {"a": keyed(1.0), "b": keyed(1.0), "c": keyed(2.0)}]
)
def test_two_methods_or_a_single_case_have_no_ranks(scores):
    assert friedman(scores) is None


def test_equal_methods_do_not_differ():
    found = friedman({name: keyed(1.0, 2.0, 3.0) for name in "abc"})
    assert found.p == 1.0 and len(found.indistinct) == 1


def test_the_text_reports_too_little_data():
    few_shot = PROTOCOLS["few_shot"]
    lines = [line("RPO", "x", [60.0, 61.0], "1 shot"), line("CoOp", "x", [50.0, 55.0], "1 shot")]
    text = statistics_text(few_shot, lines)
    assert "Statistics of 1 shot" in text and "RPO - CoOp" in text and "+8.00" in text
    assert (
        "too few pairs: 6 needed" in text
        and "too little data (expected 3 methods and 2 datasets x seeds that all have, got 2" in text
    )
    with pytest.raises(UserError, match="expected a method with results .RPO, CoOp., got 'LP'"):
        statistics_text(few_shot, lines, against="LP")


def test_the_text_marks_significant_differences():
    rng = np.random.default_rng(0)
    levels = {"RPO": 9.0, "CoOp": 5.0, "LP": 5.0}
    lines = [line(name, "x", level + rng.normal(0, 0.1, size=12), "1 shot") for name, level in levels.items()]
    text = statistics_text(PROTOCOLS["few_shot"], lines)
    marked = [row.split("  ")[0] for row in text.splitlines() if row.endswith(" *")]
    assert marked == ["RPO - CoOp", "RPO - LP"]
    assert "no significant difference: " in text and "little data" not in text
