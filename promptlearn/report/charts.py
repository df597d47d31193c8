"""Charts of a comparison's figures: base and new, curves over shots, spread over seeds, costs."""

from collections.abc import Callable
from statistics import mean, median, stdev

from matplotlib.axes import Axes

from promptlearn.experiments.results_table import AVERAGE, H_OF_MEANS
from promptlearn.report.drawing import (
    GRID,
    INK,
    MARKERS,
    PAPER,
    Picture,
    apart,
    draw,
    series,
)
from promptlearn.report.runs import Comparison

WIDTH, HALF = 10.6, 5.2  # inches: the page's width and half of it
ROW = 0.3  # inches of a method's row
BASE, NEW = "base", "new"
COSTS = {
    "trained parameters": lambda result: result.get("trained_parameters"),
    "seconds of training": lambda result: (result.get("seconds") or {}).get("train"),
    "peak memory, MiB": lambda result: result.get("peak_memory_mib"),
}
MOST_LABELS = 14  # methods in a chart that names each point
PANELS = 4  # in a row
DECADE = 10  # costs whose range is wider are drawn on a logarithmic scale


def colour(comparison: Comparison, method: str) -> str:
    return series(comparison.number(method))


def base_and_new(comparison: Comparison) -> list[Picture]:
    """For the average and each data set: base, new and H of each method, the best H on top."""
    places = [AVERAGE, *comparison.datasets] if len(comparison.datasets) > 1 else comparison.datasets
    return [one_base_and_new(comparison, place) for place in places]


def one_base_and_new(comparison: Comparison, place: str) -> Picture:
    columns = (BASE, NEW, H_OF_MEANS)
    means = {method: {c: comparison.mean(method, place, c) for c in columns} for method in comparison.methods}
    means = {method: of for method, of in means.items() if None not in of.values()}
    methods = sorted(means, key=lambda method: means[method][H_OF_MEANS])

    def paint(canvas) -> None:
        axes = canvas.subplots()
        for height, method in enumerate(methods):
            of, own = means[method], colour(comparison, method)
            axes.plot([of[BASE], of[NEW]], [height, height], color=own, alpha=0.35, linewidth=5, zorder=1)
            axes.plot(of[BASE], height, "o", color=own, markersize=8)
            axes.plot(of[NEW], height, "o", color=own, markersize=8, markerfacecolor=PAPER, markeredgewidth=1.8)
            axes.plot(of[H_OF_MEANS], height, "|", color=INK, markersize=11, markeredgewidth=1.8)
            axes.annotate(f"{of[H_OF_MEANS]:.1f}", (1.01, height), xycoords=("axes fraction", "data"), va="center")
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(-0.6, len(methods) - 0.4)
        axes.set_xlabel("accuracy, %      ● base   ○ new   | H")
        axes.grid(axis="x")
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)

    said = "; ".join(
        f"{method}: base {of[BASE]:.1f}, new {of[NEW]:.1f}, H {of[H_OF_MEANS]:.1f}"
        for method, of in ((method, means[method]) for method in reversed(methods))
    )
    alt = f"Base and new accuracy in percent, {place}, best harmonic mean first. {said or 'No complete runs'}."
    return draw(f"Base and new: {place}", alt, (HALF, 0.8 + ROW * max(len(methods), 2)), paint)


def curves(comparison: Comparison, stage: str) -> list[Picture]:
    """Accuracy over the number of shots, with a band of one sample deviation over the seeds."""
    pictures = []
    for dataset in comparison.datasets:
        lines = {}
        for method in comparison.methods:
            runs = {shots: comparison.accuracies(method, dataset, stage, shots) for shots in comparison.shots}
            points = [(shots, mean(of), stdev(of) if len(of) > 1 else 0.0) for shots, of in runs.items() if of]
            if points:
                lines[method] = points
        if any(len(points) > 1 for points in lines.values()):
            pictures.append(one_curve(comparison, dataset, stage, lines))
    return pictures


def one_curve(
    comparison: Comparison, dataset: str, stage: str, lines: dict[str, list[tuple[int, float, float]]]
) -> Picture:
    """`lines`: method -> (shots, mean, deviation) of each number of shots that was run."""

    def paint(canvas) -> None:
        axes = canvas.subplots()
        for method, points in lines.items():
            shots, means, deviations = zip(*points, strict=True)
            own, marker = colour(comparison, method), MARKERS[comparison.number(method) % len(MARKERS)]
            if method in comparison.untrained:  # any number of shots gives this
                axes.axhline(means[0], color=own, linestyle="--", linewidth=1.4)
                continue
            low, high = zip(*((m - d, m + d) for m, d in zip(means, deviations, strict=True)), strict=True)
            axes.fill_between(shots, low, high, color=own, alpha=0.14, linewidth=0)
            axes.plot(shots, means, marker=marker, color=own, markersize=5, linewidth=1.8)
        axes.set_xscale("log", base=2)
        axes.set_xticks(comparison.shots, [str(shots) for shots in comparison.shots])
        axes.minorticks_off()
        axes.set_xlabel("training images per class (shots)")
        axes.set_ylabel(f"accuracy, % ({stage})")
        axes.grid()
        ends = {method: points[-1][1] for method, points in lines.items()}
        label_ends(axes, comparison, ends)

    said = "; ".join(
        f"{method}: " + ", ".join(f"{mean:.1f} with {shots}" for shots, mean, _ in points)
        for method, points in lines.items()
    )
    alt = f"Accuracy ({stage}) over the number of shots on {dataset}; bands: one sample deviation. {said}."
    return draw(f"Few shots: {dataset}, {stage}", alt, (HALF, 3.6), paint)


def label_ends(axes: Axes, comparison: Comparison, ends: dict[str, float]) -> None:
    """The methods' names beside the axes, each at the height of its line's end as far as there is room."""
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    for (method, end), height in zip(ends.items(), apart(list(ends.values()), 0.06 * (high - low)), strict=True):
        beside(axes, method, (right, end), height, colour(comparison, method))


def spread(comparison: Comparison, dataset: str) -> Picture | None:
    """Box plots of each method's accuracies over the seeds, one panel a stage, a dot for each run."""
    values: dict[str, dict[str, list[float]]] = {
        stage: {method: comparison.accuracies(method, dataset, stage) for method in comparison.methods}
        for stage in comparison.stages
    }
    if not any(len(runs) > 1 for of in values.values() for runs in of.values()):
        return None
    columns = min(len(values), PANELS)
    rows = -(-len(values) // columns)

    def paint(canvas) -> None:
        panels = canvas.subplots(rows, columns, sharey=True, squeeze=False).flat
        for axes, (stage, of) in zip(panels, values.items(), strict=False):
            for height, method in enumerate(reversed(comparison.methods)):
                runs, own = of[method], colour(comparison, method)
                if len(runs) > 1:
                    box(axes, runs, height, own)
                axes.plot(runs, [height] * len(runs), "o", color=own, markersize=4.5)
            axes.set_title(stage)
            axes.set_xlabel("accuracy, %")
            axes.set_yticks(range(len(comparison.methods)), reversed(comparison.methods))
            axes.set_ylim(-0.6, len(comparison.methods) - 0.4)
            axes.grid(axis="x")
            axes.tick_params(length=0)
            axes.spines[["left", "bottom"]].set_visible(False)
        for axes in list(panels):
            axes.set_visible(False)

    said = "; ".join(
        f"{method}, {stage}: {min(runs):.1f} to {max(runs):.1f}, n = {len(runs)}"
        for stage, of in values.items()
        for method, runs in of.items()
        if runs
    )
    alt = f"Spread of accuracy over the seeds on {dataset}. {said}."
    height = rows * (1.1 + ROW * len(comparison.methods))
    return draw(f"Spread over the seeds: {dataset}", alt, (WIDTH, height), paint, wide=True)


def box(axes: Axes, runs: list[float], height: float, own: str) -> None:
    """Quartiles and median of the runs, whiskers to the last run within 1.5 quartile ranges (Tukey)."""
    line = {"color": own, "linewidth": 1.3}
    axes.boxplot(
        runs,
        positions=[height],
        orientation="horizontal",
        widths=0.55,
        manage_ticks=False,
        showcaps=False,
        showfliers=False,  # every run is drawn as a dot
        boxprops=line,
        whiskerprops=line,
        medianprops={"color": INK, "linewidth": 1.6},
    )


def costs(comparison: Comparison) -> Picture | None:
    """The methods' measure, averaged over the data sets, against what it costs."""
    place = AVERAGE if len(comparison.datasets) > 1 else comparison.datasets[0]
    heights = {method: comparison.mean(method, place) for method in comparison.methods}
    heights = {method: value for method, value in heights.items() if value is not None}
    at = {label: {m: typical(comparison, m, figure) for m in heights} for label, figure in COSTS.items()}
    if not 1 < len(heights.keys() - comparison.untrained) <= MOST_LABELS:
        return None
    between = 0.07 * (max(heights.values()) - min(heights.values()))

    def paint(canvas) -> None:
        panels = canvas.subplots(1, len(COSTS), sharey=True)
        for axes, (label, cost_of) in zip(panels, at.items(), strict=True):
            placed = {method: cost for method, cost in cost_of.items() if cost and method not in comparison.untrained}
            for (method, cost), height in zip(
                placed.items(), apart([heights[m] for m in placed], between), strict=True
            ):
                axes.plot(cost, heights[method], "o", color=colour(comparison, method), markersize=8, zorder=3)
                beside(axes, method, (cost, heights[method]), height, colour(comparison, method))
            for method in heights.keys() - placed.keys():
                axes.axhline(heights[method], color=colour(comparison, method), linestyle="--", linewidth=1.4)
            if placed and max(placed.values()) > DECADE * min(placed.values()):
                axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:,.10g}")
            axes.margins(x=0.12)
            axes.set_xlabel(label)
            axes.grid()
        panels[0].set_ylabel(f"{comparison.measure}, %")

    said = "; ".join(
        f"{method}: {height:.2f} % with " + ", ".join(f"{at[label][method] or 0:,.6g} {label}" for label in COSTS)
        for method, height in heights.items()
    )
    alt = f"{comparison.measure} ({place}) against its costs, medians over the trainings. {said}."
    return draw("Accuracy and its costs", alt, (WIDTH, 3.6), paint, wide=True)


def typical(comparison: Comparison, method: str, figure: Callable[[dict], float | None]) -> float | None:
    """The median of a figure in the results.json of a method's trainings, None if no training recorded it."""
    results = [run.result for run in comparison.runs if run.method == method and not run.job.source]
    values = [value for result in results if (value := figure(result)) is not None]
    return median(values) if values else None


def beside(axes: Axes, text: str, point: tuple[float, float], height: float, own: str) -> None:
    """A label at the right of the axes, at a height (data), with a line to its point."""
    axes.annotate(
        text,
        point,
        (1.04, height),
        textcoords=("axes fraction", "data"),
        va="center",
        color=own,
        arrowprops={"arrowstyle": "-", "color": GRID, "shrinkA": 0, "shrinkB": 5},
    )
