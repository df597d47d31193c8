"""The critical-difference diagram (Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, 2006)."""

from dassl.experiments.report.charts import ROW, WIDTH, colour
from dassl.experiments.report.drawing import INK, MUTED, Picture, draw
from dassl.experiments.report.runs import Comparison
from dassl.experiments.statistics import ALPHA, Ranks


def critical_differences(comparison: Comparison, ranks: Ranks, measure: str) -> Picture:
    """Methods on a line of mean ranks, the best at the left; a bar joins those that are not told apart."""
    names = list(ranks.ranks)
    half = -(-len(names) // 2)
    bars = len(ranks.groups)

    def paint(canvas) -> None:
        axes = canvas.subplots()
        first, last = 1, len(names)
        axes.plot([first, last], [0, 0], color=INK, linewidth=1.4)
        for rank in range(first, last + 1):
            axes.plot([rank, rank], [0, 0.22], color=INK, linewidth=1.2)
            axes.text(rank, 0.34, str(rank), ha="center", va="bottom", color=MUTED)
        for number, group in enumerate(ranks.groups):
            ends = ranks.ranks[group[0]] - 0.05, ranks.ranks[group[-1]] + 0.05
            axes.plot(ends, [-0.4 - 0.4 * number] * 2, color=INK, linewidth=4)
        for place, (name, rank) in enumerate(ranks.ranks.items()):
            left = place < half
            height = -0.9 - 0.4 * bars - 0.8 * (place if left else len(names) - 1 - place)
            edge = first - 0.25 if left else last + 0.25
            axes.plot([rank, rank, edge], [0, height, height], color=colour(comparison, name), linewidth=1.3)
            text = f"{name}  {rank:.2f}" if left else f"{rank:.2f}  {name}"
            side = "right" if left else "left"
            axes.text(edge + (-0.06 if left else 0.06), height, text, ha=side, va="center")
        end = first + ranks.critical_difference
        axes.plot([first, end], [1.45, 1.45], color=INK, linewidth=1.4)
        for x in (first, end):
            axes.plot([x, x], [1.3, 1.6], color=INK, linewidth=1.4)
        said = f"critical difference {ranks.critical_difference:.2f} (Nemenyi, {ALPHA})"
        axes.text(end + 0.1, 1.45, said, va="center", color=MUTED)
        axes.set_axis_off()
        axes.set_xlim(first - 0.3 * (last - first) - 0.6, last + 0.3 * (last - first) + 0.6)

    order = ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.ranks.items())
    together = "; ".join(", ".join(group) for group in ranks.groups) or "none"
    alt = f"Mean ranks in {measure}: {order}. Critical difference {ranks.critical_difference:.2f}. Not told apart: "
    size = (WIDTH, 0.9 + ROW * (half + 0.5 * bars + 1.5))
    return draw(f"Critical differences: {measure}", f"{alt}{together}.", size, paint, wide=True)
