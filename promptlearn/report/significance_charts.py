"""Charts of the significance tests: pairwise differences, and the critical-difference diagram of all methods.

The diagram is Demsar's (Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006).
"""

from matplotlib.patches import Rectangle

from promptlearn.experiments.significance import ALPHA, Difference, Ranks
from promptlearn.report.charts import ROW, color
from promptlearn.report.drawing import (
    GAIN,
    GRID,
    HALF,
    INK,
    LOSS,
    MUTED,
    WIDTH,
    Chart,
    add_cell,
    name_cells,
    write_inside,
)
from promptlearn.report.runs import Comparison

SQUARES = 8  # minimum that a row of differences has room for, so that a few are not stretched


def difference_matrix(comparison: Comparison, found: list[Difference], measure: str) -> Chart:
    """Draw the mean difference of each pair, row minus column; filled where it is significant."""
    of = {}
    for pair in found:
        if pair.difference is not None:
            significant = pair.p is not None and pair.p <= ALPHA
            of[pair.a, pair.b] = pair.difference, significant
            of[pair.b, pair.a] = -pair.difference, significant
    names = sorted(dict.fromkeys(method for pair in of for method in pair), key=comparison.number)

    def paint(canvas) -> None:
        axes = canvas.subplots()
        for y, row in enumerate(names):
            for x, column in enumerate(names):
                if (row, column) not in of:
                    continue
                difference, significant = of[row, column]
                tint = (GAIN if difference > 0 else LOSS, 0.3) if significant else "none"
                square = (x - 0.47, y - 0.45), 0.94, 0.9
                cell = Rectangle(*square, facecolor=tint, edgecolor=GRID, linewidth=0.6)
                add_cell(axes, cell, f"{row} minus {column}: {difference:+z.2f}" + " (significant)" * significant)
                write_inside(axes, x, y, f"{difference:+z.1f}", color=INK if significant else MUTED)
        axes.set_xlim(-0.6, max(len(names), SQUARES) - 0.4)
        axes.set_ylim(len(names) - 0.4, -0.6)
        name_cells(axes, names, names)

    listed = [f"{a} minus {b} {d:+.1f}" for (a, b), (d, significant) in of.items() if significant and d > 0]
    alt = f"Mean differences in {measure} between all pairs of methods. Significant: {'; '.join(listed) or 'none'}."
    size = (HALF if len(names) <= SQUARES else WIDTH, 1 + 0.9 * ROW * max(len(names), 2))
    return Chart(f"Row minus column, {measure}", alt, size, paint)


def critical_difference_diagram(comparison: Comparison, ranks: Ranks, measure: str) -> Chart:
    """Draw methods on a line of mean ranks, best on the left; a bar joins those without a significant difference."""
    names = list(ranks.ranks)
    half = -(-len(names) // 2)
    bars = len(ranks.indistinct)

    def paint(canvas) -> None:
        axes = canvas.subplots()
        first, last = 1, len(names)
        axes.plot([first, last], [0, 0], color=INK, linewidth=1.4)
        for rank in range(first, last + 1):
            axes.plot([rank, rank], [0, 0.22], color=INK, linewidth=1.2)
            axes.text(rank, 0.34, str(rank), ha="center", va="bottom", color=MUTED)
        for number, together in enumerate(ranks.indistinct):
            ends = ranks.ranks[together[0]] - 0.05, ranks.ranks[together[-1]] + 0.05
            axes.plot(ends, [-0.4 - 0.4 * number] * 2, color=INK, linewidth=4)
        for place, (name, rank) in enumerate(ranks.ranks.items()):
            left = place < half
            height = -0.9 - 0.4 * bars - 0.8 * (place if left else len(names) - 1 - place)
            edge = first - 0.25 if left else last + 0.25
            axes.plot([rank, rank, edge], [0, height, height], color=color(comparison, name), linewidth=1.3)
            text = f"{name}  {rank:.2f}" if left else f"{rank:.2f}  {name}"
            side = "right" if left else "left"
            axes.text(edge + (-0.06 if left else 0.06), height, text, ha=side, va="center")
        end = first + ranks.critical_difference
        axes.plot([first, end], [1.45, 1.45], color=INK, linewidth=1.4)
        for x in (first, end):
            axes.plot([x, x], [1.3, 1.6], color=INK, linewidth=1.4)
        label = f"critical difference {ranks.critical_difference:.2f} (Nemenyi, {ALPHA})"
        axes.text(end + 0.1, 1.45, label, va="center", color=MUTED)
        axes.set_axis_off()
        axes.set_xlim(first - 0.3 * (last - first) - 0.6, last + 0.3 * (last - first) + 0.6)

    order = ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.ranks.items())
    together = "; ".join(", ".join(names) for names in ranks.indistinct) or "none"
    alt = f"Mean ranks in {measure}: {order}. Critical difference {ranks.critical_difference:.2f}. Joined: "
    size = (HALF if len(names) <= SQUARES else WIDTH, 0.9 + ROW * (half + 0.5 * bars + 1.5))
    return Chart(f"Critical differences: {measure}", f"{alt}{together}.", size, paint)
