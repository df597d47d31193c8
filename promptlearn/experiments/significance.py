"""Tests whether differences are real: methods are compared on the same datasets and seeds.

For a pair of methods: the mean difference with a bootstrap interval, and Wilcoxon's signed-rank test with Holm's
correction for the number of pairs. For all methods: Friedman's test on the ranks, and the critical difference of
Nemenyi's test (Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006).

A score is the accuracy or harmonic mean of one run. A case is a dataset and a seed. Zero-shot CLIP has one score per
dataset, which is paired with every seed.
"""

import itertools
import statistics
from dataclasses import dataclass

import numpy as np
from scipy import stats

from promptlearn.experiments.protocols import UNTRAINED
from promptlearn.experiments.results_table import Line

ALPHA = 0.05  # significance level of the tests; the intervals' level is 1 - ALPHA
RESAMPLES = 9999  # of the bootstrap

Scores = dict[str, dict[tuple[str, int], float]]  # method -> (dataset, seed) -> score


def scores_of(lines: list[Line], column: str) -> Scores:
    """Return the scores of each method in one column of the table."""
    scores = {}
    seeds = sorted({seed for line in lines if line.row.trainer not in UNTRAINED for seed in line.columns[column]})
    for line in lines:
        own = scores.setdefault(line.method, {})
        values = line.columns[column]
        if line.row.trainer in UNTRAINED and values:
            mean = statistics.mean(values.values())
            values = {seed: values.get(seed, mean) for seed in seeds or values}
        own |= {(line.row.dataset, seed): score for seed, score in values.items()}
    return scores


@dataclass(frozen=True)
class Difference:
    """Method `a` minus method `b`."""

    a: str
    b: str
    n: int  # cases that both methods have
    difference: float | None  # mean
    interval: tuple[float, float] | None  # None: too few cases
    p: float | None  # of Wilcoxon's test, corrected by Holm; None: too few cases to ever reach ALPHA


def compare(scores: Scores, against: str | None = None) -> list[Difference]:
    """Compare all pairs of methods, or one with all others. Holm's correction counts the pairs that can be tested."""
    if against is None:
        pairs = list(itertools.combinations(scores, 2))
    else:
        pairs = [(against, other) for other in scores if other != against]
    differences = []
    for a, b in pairs:
        shared = sorted(scores[a].keys() & scores[b].keys())
        differences.append(np.array([scores[a][key] - scores[b][key] for key in shared]))
    enough = needed(len(pairs))
    tested = [i for i, d in enumerate(differences) if len(d) >= enough]
    corrected = dict(zip(tested, holm([wilcoxon(differences[i]) for i in tested]), strict=True))
    return [
        Difference(a, b, len(d), float(d.mean()) if len(d) else None, interval(d), corrected.get(i))
        for i, ((a, b), d) in enumerate(zip(pairs, differences, strict=True))
    ]


def needed(comparisons: int) -> int:
    """Return the smallest number of cases n whose smallest p-value, 2 / 2^n, passes the first step of Holm's test."""
    return next(n for n in itertools.count(1) if 2 / 2**n * max(comparisons, 1) <= ALPHA)


def wilcoxon(differences: np.ndarray) -> float:
    """Compute the two-sided p-value of Wilcoxon's signed-rank test; 1 if all differences are zero."""
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p_values: list[float]) -> list[float]:
    """Correct p-values by Holm's step-down procedure, keeping their order."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.minimum(np.maximum.accumulate(np.array(p_values)[order] * factors), 1.0)
    corrected = np.empty(len(p_values))
    corrected[order] = stepped
    return corrected.tolist()


def interval(differences: np.ndarray) -> tuple[float, float] | None:
    """Compute the percentile bootstrap interval of the mean difference, the same at every call.

    None for fewer cases than a single test needs: they have too few distinct resamples for the level.
    """
    if len(differences) < needed(1):
        return None
    found = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - ALPHA,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Ranks:
    """The result of Friedman's test, and what a critical-difference diagram shows."""

    ranks: dict[str, float]  # method -> mean rank (1 is best), best first
    n: int  # cases that all methods have
    p: float  # of the hypothesis that all methods are equal
    critical_difference: float  # of mean ranks
    indistinct: list[list[str]]  # the largest sets of methods whose mean ranks are within the critical difference


def shared_cases(scores: Scores) -> list:
    """Return the cases that all methods have."""
    return sorted(set.intersection(*(set(own) for own in scores.values()))) if scores else []


def friedman(scores: Scores) -> Ranks | None:
    """Rank all methods; None for fewer than three methods, or fewer than two cases that all of them have."""
    cases = shared_cases(scores)
    k, n = len(scores), len(cases)
    if k < 3 or n < 2:
        return None
    table = np.array([[own[case] for case in cases] for own in scores.values()])  # (methods, cases)
    mean_ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    ranks = dict(sorted(zip(scores, mean_ranks.tolist(), strict=True), key=lambda pair: pair[1]))
    # If all methods are equal in all cases, there is nothing to test.
    p = float(stats.friedmanchisquare(*table).pvalue) if np.ptp(table, axis=0).any() else 1.0
    difference = float(stats.studentized_range.ppf(1 - ALPHA, k, np.inf) / 2**0.5 * (k * (k + 1) / (6 * n)) ** 0.5)
    return Ranks(ranks, n, p, difference, indistinct_methods(ranks, difference))


def indistinct_methods(ranks: dict[str, float], difference: float) -> list[list[str]]:
    """Return the largest sets of two or more neighbors whose mean ranks lie within `difference`."""
    names, found, reached = list(ranks), [], 0
    for first, name in enumerate(names):
        last = max(i for i in range(first, len(names)) if ranks[names[i]] - ranks[name] <= difference)
        if last > first and last > reached:
            found.append(names[first : last + 1])
            reached = last
    return found
