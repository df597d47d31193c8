"""Are the differences real? Methods compared in pairs over the same data sets and seeds.

Two methods: the mean difference with a bootstrap interval, and Wilcoxon's signed-rank test with Holm's correction for
the number of comparisons. All together: Friedman's test on the ranks, and the critical difference of Nemenyi's test
(Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006). scipy does the tests.

A score is an accuracy, or a harmonic mean, of one run. Zero-shot CLIP, which has one score a data set, meets every seed
with it.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import stats

from promptlearn.experiments.protocols import UNTRAINED
from promptlearn.experiments.results_table import Line

ALPHA = 0.05  # level of the tests; intervals have 1 - ALPHA
RESAMPLES = 9999  # of the bootstrap

Scores = dict[str, dict[tuple[str, int], float]]  # method -> (data set, seed) -> score


def scores_of(lines: list[Line], column: str) -> Scores:
    """The scores of each method in one column of the table."""
    scores = {}
    seeds = sorted({seed for line in lines if line.row.trainer not in UNTRAINED for seed in line.columns[column]})
    for line in lines:
        own = scores.setdefault(line.method, {})
        values = line.columns[column]
        if line.row.trainer in UNTRAINED and values:
            [score] = values.values()
            values = dict.fromkeys(seeds or values, score)
        own |= {(line.row.dataset, seed): score for seed, score in values.items()}
    return scores


@dataclass(frozen=True)
class Difference:
    """Method `a` less method `b`."""

    a: str
    b: str
    n: int  # pairs: data sets and seeds that both have
    difference: float | None  # mean
    interval: tuple[float, float] | None  # None: too few pairs
    p: float | None  # of Wilcoxon's test, corrected by Holm; None: too few pairs to reach ALPHA whatever they are


def compare(scores: Scores, against: str | None = None) -> list[Difference]:
    """All pairs of methods, or one against all others. Holm's correction counts the pairs that can be tested."""
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
    """How many pairs a test needs at least, so that its smallest p-value, 2 / 2^n, passes Holm's first hurdle."""
    return next(n for n in itertools.count(1) if 2 / 2**n * max(comparisons, 1) <= ALPHA)


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; 1 where there is no difference at all."""
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p_values: list[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down procedure, in the order they came in."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.minimum(np.maximum.accumulate(np.array(p_values)[order] * factors), 1.0)
    corrected = np.empty(len(p_values))
    corrected[order] = stepped
    return corrected.tolist()


def interval(differences: np.ndarray) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean difference, the same at every call.

    None where a single test needs more pairs: so few have hardly more resamples than the level asks for.
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
    """Friedman's test, and what a critical-difference diagram shows."""

    ranks: dict[str, float]  # method -> mean rank, 1 the best; best first
    n: int  # cases: data sets and seeds that all methods have
    p: float  # that all methods are alike
    critical_difference: float  # of mean ranks
    indistinct: list[list[str]]  # the largest sets of methods whose mean ranks are within the critical difference


def shared_cases(scores: Scores) -> list:
    """The data sets x seeds that all methods have."""
    return sorted(set.intersection(*(set(own) for own in scores.values()))) if scores else []


def friedman(scores: Scores) -> Ranks | None:
    """None where it cannot be done: fewer than three methods, or than two cases that all of them have."""
    cases = shared_cases(scores)
    k, n = len(scores), len(cases)
    if k < 3 or n < 2:
        return None
    table = np.array([[own[case] for case in cases] for own in scores.values()])  # (methods, cases)
    mean_ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    ranks = dict(sorted(zip(scores, mean_ranks.tolist(), strict=True), key=lambda pair: pair[1]))
    # All methods equal in all cases: there is nothing to test.
    p = float(stats.friedmanchisquare(*table).pvalue) if np.ptp(table, axis=0).any() else 1.0
    difference = float(stats.studentized_range.ppf(1 - ALPHA, k, np.inf) / 2**0.5 * (k * (k + 1) / (6 * n)) ** 0.5)
    return Ranks(ranks, n, p, difference, indistinct_methods(ranks, difference))


def indistinct_methods(ranks: dict[str, float], difference: float) -> list[list[str]]:
    """The largest groups of two or more neighbours whose mean ranks lie within `difference`."""
    names, found, reached = list(ranks), [], 0
    for first, name in enumerate(names):
        last = max(i for i in range(first, len(names)) if ranks[names[i]] - ranks[name] <= difference)
        if last > first and last > reached:
            found.append(names[first : last + 1])
            reached = last
    return found
