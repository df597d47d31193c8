"""Tests whether differences are real: methods are compared with equal shots, on the same datasets and seeds.

A case of a test is a dataset: scores are averaged over the seeds first, because runs on one dataset are not independent
(Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006). For a pair of methods: the mean
difference, and Wilcoxon's signed-rank test with Holm's correction for the number of pairs. For all methods: Friedman's
test on the ranks, and the critical difference of Nemenyi's test.

Single seeds count only in the interval of a mean difference, which is a hierarchical bootstrap: it resamples the
datasets, then the seeds within each (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

A score is the accuracy or harmonic mean of one run. docs/statistics.md explains the choices.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache
from statistics import mean

import numpy as np
from scipy import stats

from promptlearn.experiments.protocols import UNTRAINED
from promptlearn.experiments.results_table import MISSING, Line

ALPHA = 0.05  # significance level of the tests; the intervals' level is 1 - ALPHA
RESAMPLES, BOOTSTRAP_SEED = 9999, 0
# With five, nothing can be found: even if one method wins on all, chance does the same with p = 2 / 2^5 = 0.06.
ENOUGH = 6  # datasets for ranks and intervals; also seeds, for an interval that holds for given datasets only

# method -> dataset -> seed -> score. A method without randomness has one score, under None, for every seed.
Scores = dict[str, dict[str, dict[int | None, float]]]


def scores_of(lines: list[Line], column: str) -> Scores:
    """Return the scores of each method in one column of the table. The lines have equal shots.

    Methods that have no answer in this column are left out: they are neither compared nor ranked.
    """
    scores: Scores = {}
    for line in lines:
        values = line.columns[column]
        if not values and line.no_figure(column) != MISSING:
            continue
        own = scores.setdefault(line.method, {})
        if values:
            own[line.row.dataset] = {None: mean(values.values())} if line.row.trainer in UNTRAINED else dict(values)
    return scores


def shared_scores(scores: Scores) -> dict[str, list[list[float]]]:
    """Return {dataset: for each method, its scores} of the datasets and seeds that all methods have, in one order."""
    found = {}
    for dataset in sorted(set.intersection(*(set(own) for own in scores.values()))) if scores else []:
        of_methods = [own[dataset] for own in scores.values()]
        random = [set(of) for of in of_methods if None not in of]
        seeds = sorted(set.intersection(*random)) if random else [None]
        if seeds:
            found[dataset] = [[of[None] if None in of else of[seed] for seed in seeds] for of in of_methods]
    return found


@dataclass(frozen=True)
class Difference:
    """Method `a` minus method `b`."""

    a: str
    b: str
    n: int  # datasets on which both have a common seed
    difference: float | None  # mean over these datasets of the mean over the common seeds
    interval: tuple[float, float] | None  # None: too few datasets, and too few seeds
    p: float | None  # of Wilcoxon's test, corrected by Holm; None: too few datasets to ever reach ALPHA


def compare(scores: Scores, against: str | None = None) -> list[Difference]:
    """Compare all pairs of methods, or one with all others. Holm's correction counts the pairs that can be tested."""
    if against is None:
        pairs = list(itertools.combinations(scores, 2))
    else:
        pairs = [(against, other) for other in scores if other != against]
    of_pairs = []  # of each pair: the differences on each dataset, seed by seed
    for a, b in pairs:
        shared = shared_scores({a: scores[a], b: scores[b]}).values()
        of_pairs.append([np.subtract(*of_methods) for of_methods in shared])
    # Rounded, so that equal differences are tied however they were summed.
    means = [np.array([seeds.mean() for seeds in datasets]).round(9) for datasets in of_pairs]
    tested = [i for i, of_datasets in enumerate(means) if len(of_datasets) >= needed(len(pairs))]
    corrected = dict(zip(tested, holm([wilcoxon(means[i]) for i in tested]), strict=True))
    return [
        Difference(a, b, len(m), float(m.mean()) if len(m) else None, interval(datasets), corrected.get(i))
        for i, ((a, b), m, datasets) in enumerate(zip(pairs, means, of_pairs, strict=True))
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


def interval(datasets: list[np.ndarray]) -> tuple[float, float] | None:
    """Compute the percentile bootstrap interval of the mean difference, the same at every call.

    None for fewer than ENOUGH datasets, unless each of them has as many seeds: then the datasets are given, not
    resampled.

    Args:
        datasets: the differences on each dataset, seed by seed.
    """
    seeds = tuple(map(len, datasets))
    if not seeds or (len(seeds) < ENOUGH and min(seeds) < ENOUGH):
        return None
    means = resampling_weights(seeds) @ np.concatenate(datasets)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


@lru_cache(maxsize=8)  # all pairs of methods usually have the same datasets and seeds
def resampling_weights(seeds: tuple[int, ...]) -> np.ndarray:
    """Return the weights (RESAMPLES, cases) of the runs in each resample's mean over datasets of means over seeds.

    A dataset that was drawn c times has c independent draws of its n seeds: c * n draws from n seeds.

    Args:
        seeds: the number of each dataset's seeds.
    """
    rng, n = np.random.default_rng(BOOTSTRAP_SEED), len(seeds)
    drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) if n >= ENOUGH else np.ones((RESAMPLES, n), dtype=int)
    return np.hstack([rng.multinomial(c * k, np.full(k, 1 / k)) / (k * n) for c, k in zip(drawn.T, seeds, strict=True)])


@dataclass(frozen=True)
class Ranks:
    """The result of Friedman's test, and what a critical-difference diagram shows."""

    ranks: dict[str, float]  # method -> mean rank (1 is best), best first
    n: int  # datasets that all methods have
    p: float  # of the hypothesis that all methods are equal
    critical_difference: float  # of mean ranks
    indistinct: list[list[str]]  # the largest sets of methods whose mean ranks are within the critical difference


def friedman(scores: Scores) -> Ranks | None:
    """Rank all methods by their means over the seeds; None for fewer than three methods, or ENOUGH datasets."""
    table = np.array(
        [[round(mean(own), 9) for own in of] for of in shared_scores(scores).values()]
    ).T  # (methods, datasets)
    k, n = len(scores), len(table.T)
    if k < 3 or n < ENOUGH:
        return None
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
