"""The statistics as text, with their limits."""

from tabulate import tabulate

from basics import UserError
from basics.csv_files import csv_text
from promptlearn.experiments.protocols import Protocol
from promptlearn.experiments.results_table import FORMATS, H_OF_SEEDS, TARGETS, Line, columns_of
from promptlearn.experiments.significance import (
    ALPHA,
    Difference,
    Ranks,
    Scores,
    compare,
    friedman,
    needed,
    scores_of,
    shared_cases,
)

RELIABLE_CASES = 10  # above it, chi-squared approximates Friedman's statistic well (Demsar, section 3.2.2)


def measures(protocol: Protocol, lines: list[Line]) -> list[str]:
    """Return the columns in which methods are compared."""
    if protocol.transfer:
        return [TARGETS]
    return ["base", "new", H_OF_SEEDS] if protocol.harmonic else columns_of(lines)


def statistics_text(protocol: Protocol, lines: list[Line], against: str | None = None, style: str = "text") -> str:
    """Compare every pair of methods, or `against` and every other, by each measure, and rank all."""
    methods = list(dict.fromkeys(line.method for line in lines))
    if against and against not in methods:
        raise UserError(f"--statistics: expected a method with results ({', '.join(methods)}), got {against!r}.")
    parts = []
    for measure in measures(protocol, lines):
        scores = scores_of(lines, measure)
        table, note = pairs_text(compare(scores, against), style)
        ranks = ranks_text(friedman(scores), scores)
        parts += [comment(f"Statistics of {measure}", style), table, comment(note, style), comment(ranks, style)]
    return "\n\n".join(parts)


def comment(text: str, style: str) -> str:
    """Format text between tables: as a comment where a program reads the tables."""
    mark = {"latex": "% ", "csv": "# "}.get(style, "")
    return "\n".join(mark + line for line in text.splitlines())


def pairs_text(comparisons: list[Difference], style: str) -> tuple[str, str]:
    """Format the table of all pairs, and a note on it."""
    enough = needed(len(comparisons))
    body = []
    for c in comparisons:
        interval = f"[{c.interval[0]:+.2f}, {c.interval[1]:+.2f}]" if c.interval else "too few pairs"
        if c.p is None:
            verdict = f"too few pairs: {enough} needed"
        else:
            verdict = f"{c.p:.4f}" + (" *" if c.p <= ALPHA else "")
        body.append([f"{c.a} - {c.b}", c.n, "missing" if c.difference is None else f"{c.difference:+.2f}"])
        body[-1] += [interval, verdict]
    header = ["difference", "pairs", "mean", f"{1 - ALPHA:.0%} interval (bootstrap)", "p (Wilcoxon, Holm)"]
    align = ["left", *["right"] * (len(header) - 1)]
    note = (
        f"pairs: datasets x seeds that both have; * p <= {ALPHA} after Holm's correction for {len(comparisons)} "
        "comparisons\nruns on one dataset are not independent: the figures hold for these datasets, not for others"
    )
    if style == "csv":
        return csv_text([dict(zip(header, row, strict=True)) for row in body]).rstrip("\n"), note
    return tabulate(body, header, tablefmt=FORMATS[style], colalign=align, disable_numparse=True), note


def ranks_text(ranks: Ranks | None, scores: Scores) -> str:
    methods = len(scores)
    if ranks is None:
        return (
            f"Friedman's test: too little data (expected 3 methods and 2 datasets x seeds that all have, got {methods} "
            f"and {len(shared_cases(scores))})"
        )
    order = ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.ranks.items())
    lines = [
        f"Friedman's test that all {methods} methods are equal: p = {ranks.p:.4f}, over {ranks.n} datasets x seeds",
        f"mean ranks: {order}",
        f"critical difference of mean ranks (Nemenyi, {ALPHA}): {ranks.critical_difference:.2f}",
    ]
    if ranks.n <= RELIABLE_CASES:
        lines.append(f"little data: with {RELIABLE_CASES} or fewer datasets x seeds, these figures are rough")
    if ranks.p > ALPHA:
        lines.append("no method differs significantly from another")
    else:
        similar = ["no significant difference: " + ", ".join(names) for names in ranks.indistinct]
        lines += similar or ["all methods differ significantly"]
    return "\n".join(lines)
