"""The statistics as text, with their limits."""

from basics import UserError
from basics.csv_files import csv_text
from promptlearn.experiments.protocols import Protocol
from promptlearn.experiments.results_table import (
    H_OF_SEEDS,
    NOTES,
    TARGETS,
    Line,
    at_equal_shots,
    columns_of,
    comment,
    formatted,
)
from promptlearn.experiments.significance import (
    ALPHA,
    BOOTSTRAP_SEED,
    ENOUGH,
    RESAMPLES,
    Difference,
    Ranks,
    Scores,
    compare,
    friedman,
    needed,
    scores_of,
)

RELIABLE_CASES = 10  # above it, chi-squared approximates Friedman's statistic well (Demsar, section 3.2.2)


def measures(protocol: Protocol, lines: list[Line]) -> list[str]:
    """Return the columns in which methods are compared."""
    if protocol.transfer:
        return [TARGETS]
    return ["base", "new", H_OF_SEEDS] if protocol.harmonic else columns_of(lines)


def statistics_text(protocol: Protocol, lines: list[Line], against: str | None = None, style: str = "text") -> str:
    """Compare every pair of methods with equal shots, or `against` and every other, by each measure, and rank all.

    Notes on the figures follow at the end, each once.
    """
    groups = at_equal_shots(lines)
    methods = list(dict.fromkeys(line.method for own in groups.values() for line in own))
    if against and against not in methods:
        raise UserError(f"--statistics: expected a method with results ({', '.join(methods)}), got {against!r}.")
    parts, every_pair, every_scores = [], [], []
    for shots, own in groups.items():
        for measure in measures(protocol, own):
            scores = scores_of(own, measure)
            if len(scores) < 2 or (against and against not in scores):
                continue
            pairs = compare(scores, against)
            parts += [comment(f"Statistics of {measure}{shots and f', {shots}'}", style), pairs_text(pairs, style)]
            if ranks := friedman(scores):
                parts.append(comment(ranks_text(ranks, len(scores)), style))
            every_pair.append(pairs)
            every_scores.append(scores)
    notes = [NOTES[H_OF_SEEDS]] if protocol.harmonic else []
    notes += notes_on_pairs(every_pair) + notes_on_ranks(every_scores)
    if any(pair.p is not None and pair.p <= ALPHA for pairs in every_pair for pair in pairs):
        notes.append(f"*: p <= {ALPHA}")
    return "\n\n".join([*parts, comment("\n".join(notes), style)])


def pairs_text(pairs: list[Difference], style: str) -> str:
    """Format the table of pairs. Intervals and p-values that no pair has are left out, except from CSV."""
    body = []
    for pair in pairs:
        interval = f"[{pair.interval[0]:+.2f}, {pair.interval[1]:+.2f}]" if pair.interval else ""
        verdict = "" if pair.p is None else f"{pair.p:.4f}" + (" *" if pair.p <= ALPHA else "")
        mean = "missing" if pair.difference is None else f"{pair.difference:+.2f}"
        body.append([f"{pair.a} - {pair.b}", pair.n, mean, interval, verdict])
    header = ["difference", "datasets", "mean", f"{1 - ALPHA:.0%} interval (bootstrap)", "p (Wilcoxon, Holm)"]
    if style == "csv":
        return csv_text([dict(zip(header, row, strict=True)) for row in body]).rstrip("\n")
    kept = [i for i in range(len(header)) if i < 3 or any(row[i] for row in body)]
    return formatted([header[i] for i in kept], [[row[i] for i in kept] for row in body], style)


def notes_on_pairs(every_pair: list[list[Difference]]) -> list[str]:
    """Explain the figures of several lists of pairs, and what is missing."""
    pairs = [pair for pairs in every_pair for pair in pairs]
    comparisons = max(map(len, every_pair), default=0)
    notes = [
        "mean: over the datasets, of the mean over the seeds that both methods have; methods are compared with equal "
        "shots only"
    ]
    if any(pair.interval for pair in pairs):
        how = f"{RESAMPLES:,} resamples, percentiles, random seed {BOOTSTRAP_SEED}"
        notes.append(f"interval: hierarchical bootstrap, which resamples datasets, then seeds within each ({how})")
    if any(pair.interval and pair.n < ENOUGH for pair in pairs):
        notes.append(f"interval with fewer than {ENOUGH} datasets: over the seeds, for these datasets only")
    if not all(pair.interval for pair in pairs):
        notes.append(f"no interval: it needs {ENOUGH} datasets, or {ENOUGH} seeds on each")
    if any(pair.p is not None for pair in pairs):
        notes.append("p-values: Wilcoxon's signed-rank test over the datasets, with Holm's correction")
    if untested := [pair.n for pair in pairs if pair.p is None]:
        enough = f"{needed(comparisons)} needed for {comparisons} comparisons"
        notes.append(f"no p-value: too few datasets: {enough}, got at most {max(untested)}")
    return notes


def notes_on_ranks(every_scores: list[Scores]) -> list[str]:
    """Explain why ranks are missing or rough; empty if none is."""
    every_rank = [friedman(scores) for scores in every_scores]
    notes = []
    if any(ranks and ranks.n <= RELIABLE_CASES for ranks in every_rank):
        notes.append(f"little data: with {RELIABLE_CASES} or fewer datasets, figures of ranks are rough")
    if all(every_rank):
        return notes
    return notes + [
        f"no ranks: Friedman's test needs 3 methods, and {ENOUGH} datasets that all of them have; with 5, not even "
        "a method that is the better on each of them differs significantly (p = 2 / 2^5 = 0.06)"
    ]


def ranks_text(ranks: Ranks, methods: int) -> str:
    order = ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.ranks.items())
    lines = [
        f"Friedman's test that all {methods} methods are equal: p = {ranks.p:.4f}, over {ranks.n} datasets",
        f"mean ranks: {order}",
        f"critical difference of mean ranks (Nemenyi, {ALPHA}): {ranks.critical_difference:.2f}",
    ]
    if ranks.p > ALPHA:
        lines.append("no method differs significantly from another")
    else:
        similar = ["no significant difference: " + ", ".join(names) for names in ranks.indistinct]
        lines += similar or ["all methods differ significantly"]
    return "\n".join(lines)
