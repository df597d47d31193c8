"""Charts of results: base and new accuracy, curves over shots, spread over seeds, costs."""

from collections.abc import Callable
from statistics import mean, median, stdev

from matplotlib.axes import Axes

from promptlearn.experiments.results_table import AVERAGE, H_OF_MEANS
from promptlearn.experiments.shots import Shots
from promptlearn.report.drawing import GRID, INK, PAPER, Chart, draw, looks, series, spread_out, tiles
from promptlearn.report.runs import Comparison

WIDTH, HALF = 10.6, 5.2  # inches: full and half width of the page
ROW = 0.3  # inches per method
BASE, NEW = "base", "new"
COSTS = {
    "trained parameters": lambda result: result.get("trained_parameters"),
    "GFLOP per training step": lambda result: (result.get("gflop") or {}).get("training_step"),
    "seconds of training": lambda result: (result.get("seconds") or {}).get("train"),
    "peak memory, MiB": lambda result: result.get("peak_memory_mib"),
}
MAX_LABELS = 14  # methods in a chart that labels each point
PANELS = 4  # in a row
DECADE = 10  # a wider range of costs gets a logarithmic scale


def color(comparison: Comparison, method: str) -> str:
    return series(comparison.number(method))


def base_and_new(comparison: Comparison) -> list[Chart]:
    """Draw base, new, and H of each method, best H on top, for the average and each dataset."""
    places = [AVERAGE, *comparison.averaged] if len(comparison.averaged) > 1 else comparison.averaged
    return [one_base_and_new(comparison, place) for place in places]


def one_base_and_new(comparison: Comparison, place: str) -> Chart:
    columns = (BASE, NEW, H_OF_MEANS)
    means = {method: {c: comparison.mean(method, place, c) for c in columns} for method in comparison.methods}
    means = {method: of for method, of in means.items() if None not in of.values()}
    methods = sorted(means, key=lambda method: means[method][H_OF_MEANS])

    def paint(canvas) -> None:
        axes = canvas.subplots()
        for height, method in enumerate(methods):
            of, own = means[method], color(comparison, method)
            axes.plot([of[BASE], of[NEW]], [height, height], color=own, alpha=0.35, linewidth=5, zorder=1)
            axes.plot(of[BASE], height, "o", color=own, markersize=8)
            axes.plot(of[NEW], height, "o", color=own, markersize=8, markerfacecolor=PAPER, markeredgewidth=1.8)
            axes.plot(of[H_OF_MEANS], height, "|", color=INK, markersize=11, markeredgewidth=1.8)
            axes.annotate(f"{of[H_OF_MEANS]:.1f}", (1.01, height), xycoords=("axes fraction", "data"), va="center")
        axes.set_xlabel("accuracy, %      ● base   ○ new   | H")
        name_rows(axes, methods)

    summary = "; ".join(
        f"{method}: base {of[BASE]:.1f}, new {of[NEW]:.1f}, H {of[H_OF_MEANS]:.1f}"
        for method, of in ((method, means[method]) for method in reversed(methods))
    )
    alt = f"Base and new accuracy in percent, {place}, best harmonic mean first. {summary or 'No complete runs'}."
    return draw(f"Base and new: {place}", alt, (HALF, 0.8 + ROW * max(len(methods), 2)), paint)


def name_rows(axes: Axes, methods: list[str]) -> None:
    """Name the rows of a chart, from the bottom, and draw a grid instead of a frame."""
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(-0.6, len(methods) - 0.4)
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def curves(comparison: Comparison, stage: str) -> list[Chart]:
    """Draw accuracy over the number of shots, with a band of one standard deviation over the seeds."""
    figures = []
    for dataset in comparison.datasets:
        lines = {}
        for method in comparison.methods:
            # A method that trains nothing has one accuracy, for any number of shots.
            own_shots = comparison.shots[-1:] if method in comparison.untrained else comparison.shots
            runs = {shots: comparison.accuracies(method, dataset, stage, shots) for shots in own_shots}
            points = [(shots, mean(of), stdev(of) if len(of) > 1 else 0.0) for shots, of in runs.items() if of]
            if points:
                lines[method] = points
        if any(len(points) > 1 for points in lines.values()):
            figures.append(one_curve(comparison, dataset, stage, lines))
    return figures


def one_curve(
    comparison: Comparison, dataset: str, stage: str, lines: dict[str, list[tuple[Shots, float, float]]]
) -> Chart:
    """Draw `lines`: method -> (shots, mean, standard deviation) of all shots that were run."""
    places = axis_places(comparison.shots)

    def paint(canvas) -> None:
        axes = canvas.subplots()
        for method, points in lines.items():
            shots, means, deviations = zip(*points, strict=True)
            own = color(comparison, method)
            if method in comparison.untrained:  # the same for any number of shots
                axes.axhline(means[0], color=own, linestyle="--", linewidth=1.4)
                continue
            low, high = zip(*((m - d, m + d) for m, d in zip(means, deviations, strict=True)), strict=True)
            x = [places[each] for each in shots]
            axes.fill_between(x, low, high, color=own, alpha=0.14, linewidth=0)
            axes.plot(x, means, **looks(comparison.number(method)), markersize=5, linewidth=1.8)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(places.values()), [str(shots) for shots in places])
        axes.minorticks_off()
        axes.set_xlabel("training images per class (shots)")
        axes.set_ylabel(f"accuracy, % ({stage})")
        axes.grid()
        ends = {method: points[-1][1] for method, points in lines.items()}
        label_ends(axes, comparison, ends)

    summary = "; ".join(
        f"{method}: "
        + ", ".join(
            f"{mean:.1f}" if method in comparison.untrained else f"{mean:.1f} with {shots}" for shots, mean, _ in points
        )
        for method, points in lines.items()
    )
    alt = f"Accuracy ({stage}) over the number of shots on {dataset}; bands: one standard deviation. {summary}."
    return draw(f"Few shots: {dataset}, {stage}", alt, (HALF, 3.6), paint)


def axis_places(shots: list[Shots]) -> dict[Shots, float]:
    """Place shots on a logarithmic axis: numbers, then percentages and "all", each a factor of 2 on."""
    last = max((each for each in shots if isinstance(each, int)), default=1)
    others = [each for each in shots if not isinstance(each, int)]
    return {each: each for each in shots if isinstance(each, int)} | {
        each: last * 2.0**place for place, each in enumerate(others, start=1)
    }


def label_ends(axes: Axes, comparison: Comparison, ends: dict[str, float]) -> None:
    """Write the methods' names next to the axes, near the ends of their lines."""
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    for (method, end), height in zip(ends.items(), spread_out(list(ends.values()), 0.06 * (high - low)), strict=True):
        label_point(axes, method, (right, end), height, color(comparison, method))


def spread(comparison: Comparison, dataset: str) -> Chart | None:
    """Draw box plots of each method's accuracies over the seeds: one panel per stage, one dot per run."""
    values: dict[str, dict[str, list[float]]] = {
        stage: {method: comparison.accuracies(method, dataset, stage) for method in comparison.methods}
        for stage in comparison.stages
    }
    if not any(len(runs) > 1 for of in values.values() for runs in of.values()):
        return None
    columns = min(len(values), PANELS)
    methods = comparison.methods[::-1]

    def paint(canvas) -> None:
        panels = tiles(canvas, len(values), columns, sharey=True)
        for axes, (stage, of) in zip(panels, values.items(), strict=True):
            for height, method in enumerate(methods):
                runs, own = of[method], color(comparison, method)
                if len(runs) > 1:
                    box(axes, runs, height, own)
                axes.plot(runs, [height] * len(runs), "o", color=own, markersize=4.5)
            axes.set_title(stage)
            axes.set_xlabel("accuracy, %")
            name_rows(axes, methods)

    summary = "; ".join(
        f"{method}, {stage}: {min(runs):.1f} to {max(runs):.1f}, n = {len(runs)}"
        for stage, of in values.items()
        for method, runs in of.items()
        if runs
    )
    alt = f"Spread of accuracy over the seeds on {dataset}. {summary}."
    height = -(-len(values) // columns) * (1.1 + ROW * len(methods))
    return draw(f"Spread over the seeds: {dataset}", alt, (WIDTH, height), paint, wide=True)


def box(axes: Axes, runs: list[float], height: float, own: str) -> None:
    """Draw quartiles and median of the runs, with whiskers to the last run within 1.5 interquartile ranges (Tukey)."""
    line = {"color": own, "linewidth": 1.3}
    axes.boxplot(
        runs,
        positions=[height],
        orientation="horizontal",
        widths=0.55,
        manage_ticks=False,
        showcaps=False,
        showfliers=False,  # every run is drawn as a dot anyway
        boxprops=line,
        whiskerprops=line,
        medianprops={"color": INK, "linewidth": 1.6},
    )


def costs(comparison: Comparison) -> Chart | None:
    """Draw the methods' measure, averaged over the datasets, against their costs: with the most shots, both of them."""
    if not comparison.averaged:
        return None
    place = AVERAGE if len(comparison.averaged) > 1 else comparison.averaged[0]
    heights = {method: comparison.mean(method, place) for method in comparison.methods}
    heights = {method: value for method, value in heights.items() if value is not None}
    at = {label: {m: typical(comparison, m, figure) for m in heights} for label, figure in COSTS.items()}
    if not 1 < len(heights.keys() - comparison.untrained) <= MAX_LABELS:
        return None
    between = 0.07 * (max(heights.values()) - min(heights.values()))

    def paint(canvas) -> None:
        panels = canvas.subplots(1, len(COSTS), sharey=True)
        for axes, (label, cost_of) in zip(panels, at.items(), strict=True):
            placed = {method: cost for method, cost in cost_of.items() if cost and method not in comparison.untrained}
            for (method, cost), height in zip(
                placed.items(), spread_out([heights[m] for m in placed], between), strict=True
            ):
                axes.plot(cost, heights[method], "o", color=color(comparison, method), markersize=8, zorder=3)
                label_point(axes, method, (cost, heights[method]), height, color(comparison, method))
            for method in [each for each in heights if each not in placed]:
                axes.axhline(heights[method], color=color(comparison, method), linestyle="--", linewidth=1.4)
            if placed and max(placed.values()) > DECADE * min(placed.values()):
                axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:,.10g}")
            axes.margins(x=0.12)
            axes.set_xlabel(label)
            axes.grid()
        panels[0].set_ylabel(f"{comparison.measure}, %")

    parts = []
    for method, height in heights.items():
        known = {label: cost for label, cost_of in at.items() if (cost := cost_of[method]) is not None}
        words = [] if method in comparison.untrained else [f"{cost:,.6g} {label}" for label, cost in known.items()]
        parts.append(f"{method}: {height:.2f} %" + (f" with {', '.join(words)}" if words else ""))
    alt = f"{comparison.measure} ({place}) against its costs, medians over the training runs. {'; '.join(parts)}."
    return draw("Accuracy and its costs", alt, (WIDTH, 3.6), paint, wide=True)


def typical(comparison: Comparison, method: str, figure: Callable[[dict], float | None]) -> float | None:
    """Return the median of a figure in the results.json of a method's training runs with the most shots.

    They are the runs that `Comparison.mean` averages. None if no run recorded it.
    """
    runs = [run for dataset in comparison.averaged for run in comparison.select(method, dataset)]
    values = [value for run in runs if not run.job.source and (value := figure(run.result)) is not None]
    return median(values) if values else None


def label_point(axes: Axes, text: str, point: tuple[float, float], height: float, own: str) -> None:
    """Write a label to the right of the axes at a height (in data units), with a line to its point."""
    axes.annotate(
        text,
        point,
        (1.04, height),
        textcoords=("axes fraction", "data"),
        va="center",
        color=own,
        arrowprops={"arrowstyle": "-", "color": GRID, "shrinkA": 0, "shrinkB": 5},
    )
