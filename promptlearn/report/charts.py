"""Charts of results: base and new accuracy, curves over shots, spread over seeds, costs."""

from collections.abc import Callable
from statistics import harmonic_mean, mean, median, stdev

from matplotlib.axes import Axes

from promptlearn.experiments.results_table import AVERAGE, H_OF_MEANS, H_OF_SEEDS
from promptlearn.experiments.shots import Shots, describe_shots
from promptlearn.report.drawing import GRID, HALF, INK, PAPER, Chart, looks, mark, series, spread_out
from promptlearn.report.runs import Comparison

ROW = 0.3  # inches per method
BASE, NEW = "base", "new"
COSTS = {
    "trained parameters": lambda result: result.get("trained_parameters"),
    "GFLOP per training step": lambda result: (result.get("gflop") or {}).get("training_step"),
    "seconds of training": lambda result: (result.get("seconds") or {}).get("train"),
    "peak memory of the process, MiB": lambda result: result.get("peak_memory_mib"),
}
LEARNED_BY_EPOCH = {"loss": "training loss", "val_accuracy": "validation accuracy, %"}  # columns of metrics.csv
LABEL = 0.17  # inches: height of a method's name next to the axes
MAX_BANDS = 8  # lines with a band of deviations; more would hide each other
FEWEST_BOXED = 5  # runs: quartiles of fewer say less than the dots
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
            [line] = axes.plot([of[BASE], of[NEW]], [height, height], color=own, alpha=0.35, linewidth=5, zorder=1)
            mark(line, "", method)
            styles = {BASE: {"color": own}, NEW: {"color": own, "markerfacecolor": PAPER, "markeredgewidth": 1.8}}
            styles[H_OF_MEANS] = {"color": INK, "marker": "|", "markersize": 11, "markeredgewidth": 1.8}
            for column, style in styles.items():
                [point] = axes.plot(of[column], height, **{"marker": "o", "markersize": 8} | style)
                mark(point, f"{method}, {column}: {of[column]:.2f} %", method)
            text = axes.annotate(
                f"{of[H_OF_MEANS]:.1f}", (1.01, height), xycoords=("axes fraction", "data"), va="center"
            )
            mark(text, "", method)
        axes.set_xlabel("accuracy, %      ● base   ○ new   | H")
        name_rows(axes, methods)

    summary = "; ".join(
        f"{method}: base {of[BASE]:.1f}, new {of[NEW]:.1f}, H {of[H_OF_MEANS]:.1f}"
        for method, of in ((method, means[method]) for method in reversed(methods))
    )
    alt = f"Base and new accuracy in percent, {place}, best harmonic mean first. {summary or 'No complete runs'}."
    return Chart(f"Base and new: {place}", alt, (HALF, 0.8 + ROW * max(len(methods), 2)), paint, one_dataset(place))


def one_dataset(place: str) -> str:
    """Return the dataset that a chart shows alone; the average shows all."""
    return "" if place == AVERAGE else place


def name_rows(axes: Axes, methods: list[str]) -> None:
    """Name the rows of a chart, from the bottom, and draw a grid instead of a frame."""
    axes.set_yticks(range(len(methods)), methods)
    for label, method in zip(axes.get_yticklabels(), methods, strict=True):
        mark(label, "", method)
    axes.set_ylim(-0.6, len(methods) - 0.4)
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def curves(comparison: Comparison) -> list[Chart]:
    """Draw accuracy over the number of shots with a band of one standard deviation, the average over datasets first."""
    places = [AVERAGE, *comparison.datasets] if len(comparison.averaged) > 1 else comparison.datasets
    columns = [*comparison.stages, *([H_OF_SEEDS] if comparison.protocol.harmonic else [])]
    figures = []
    for place in places:
        for column in columns:
            lines = {}
            for method in comparison.methods:
                # A method that trains nothing has one accuracy, for any number of shots.
                own_shots = comparison.shots[-1:] if method in comparison.untrained else comparison.shots
                of = {shots: by_seed(comparison, method, place, column, shots) for shots in own_shots}
                if any(of.values()):
                    lines[method] = {shots: list(values.values()) for shots, values in of.items() if values}
            if any(len(line) > 1 for line in lines.values()):
                figures.append(one_curve(comparison, place, column, lines))
    return figures


def by_seed(comparison: Comparison, method: str, place: str, column: str, shots: Shots) -> dict[int, float]:
    """Return the accuracy, or the harmonic mean of base and new, of each seed that has all that goes into it.

    A method that trains nothing has one seed, as in the table.
    """
    if place == AVERAGE:
        parts = [by_seed(comparison, method, dataset, column, shots) for dataset in comparison.averaged]
    elif column == H_OF_SEEDS:
        parts = [by_seed(comparison, method, place, stage, shots) for stage in comparison.stages]
    else:
        runs = comparison.select(method, place, column, shots)
        return {1 if method in comparison.untrained else run.job.seed: run.accuracy for run in runs}
    form = mean if place == AVERAGE else harmonic_mean
    return {seed: form([part[seed] for part in parts]) for seed in sorted(set.intersection(*map(set, parts)))}


def one_curve(comparison: Comparison, place: str, column: str, lines: dict[str, dict[Shots, list[float]]]) -> Chart:
    """Draw `lines`: method -> shots -> the seeds' values."""
    places = axis_places(comparison.shots)

    def paint(canvas) -> None:
        axes = canvas.subplots()
        for method, line in lines.items():
            own, look = color(comparison, method), looks(comparison.number(method))
            means = [mean(values) for values in line.values()]
            if method in comparison.untrained:  # the same for any number of shots
                mark(
                    axes.axhline(means[0], color=own, linestyle="--", linewidth=1.4),
                    f"{method}: {means[0]:.2f} %",
                    method,
                )
                continue
            deviations = [stdev(values) if len(values) > 1 else 0.0 for values in line.values()]
            low, high = zip(*((m - d, m + d) for m, d in zip(means, deviations, strict=True)), strict=True)
            x = [places[shots] for shots in line]
            if len(lines) <= MAX_BANDS:
                mark(axes.fill_between(x, low, high, color=own, alpha=0.14, linewidth=0), "", method)
            mark(axes.plot(x, means, **look | {"marker": ""}, linewidth=1.8)[0], method, method)
            for at, (shots, values), middle, deviation in zip(x, line.items(), means, deviations, strict=True):
                text = f"{method}, {describe_shots(shots)}: {middle:.2f} ± {deviation:.2f} %, n = {len(values)}"
                mark(axes.plot(at, middle, **look, markersize=5)[0], text, method)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(places.values()), [str(shots) for shots in places])
        axes.minorticks_off()
        axes.set_xlabel("training images per class (shots)")
        axes.set_ylabel(f"accuracy, % ({column})")
        axes.grid()
        label_ends(axes, comparison, {method: mean(list(line.values())[-1]) for method, line in lines.items()})

    summary = "; ".join(
        f"{method}: "
        + ", ".join(
            f"{mean(values):.1f}" + ("" if method in comparison.untrained else f" with {shots}")
            for shots, values in line.items()
        )
        for method, line in lines.items()
    )
    alt = f"Accuracy ({column}) over the number of shots on {place}; bands: one standard deviation. {summary}."
    return Chart(f"Few shots: {place}, {column}", alt, (HALF, labeled(len(lines))), paint, one_dataset(place))


def axis_places(shots: list[Shots]) -> dict[Shots, float]:
    """Place shots on a logarithmic axis: numbers, then percentages and "all", each a factor of 2 on."""
    last = max((each for each in shots if isinstance(each, int)), default=1)
    others = [each for each in shots if not isinstance(each, int)]
    return {each: each for each in shots if isinstance(each, int)} | {
        each: last * 2.0**place for place, each in enumerate(others, start=1)
    }


def labeled(methods: int) -> float:
    """Return the height of a chart that names methods next to its axes, in inches."""
    return max(3.5, 0.9 + LABEL * methods)


def label_ends(axes: Axes, comparison: Comparison, ends: dict[str, float]) -> None:
    """Write the methods' names next to the axes, near the ends of their lines."""
    right = axes.get_xlim()[1]
    label_points(axes, comparison, {method: (right, end) for method, end in ends.items()})


def label_points(axes: Axes, comparison: Comparison, points: dict[str, tuple[float, float]]) -> None:
    """Write the methods' names to the right of the axes, as near to the heights of their points as they fit."""
    low, high = axes.get_ylim()
    least = (high - low) * LABEL / (labeled(len(points)) - 0.7)
    heights = spread_out([y for _, y in points.values()], least)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for i in order:  # none below the axes, and then none above
        heights[i] = max(heights[i], low)
        low = heights[i] + least
    for i in reversed(order):
        heights[i] = min(heights[i], high)
        high = heights[i] - least
    for (method, point), height in zip(points.items(), heights, strict=True):
        label_point(axes, method, point, height, color(comparison, method))


def spread(comparison: Comparison, dataset: str) -> list[Chart]:
    """Draw each method's accuracies over the seeds, one chart per stage: a dot per run, and a box around many."""
    figures = []
    for stage in comparison.stages:
        of = {method: comparison.accuracies(method, dataset, stage) for method in comparison.methods[::-1]}
        if any(len(runs) > 1 for runs in of.values()):
            figures.append(one_spread(comparison, dataset, stage, of))
    return figures


def one_spread(comparison: Comparison, dataset: str, stage: str, of: dict[str, list[float]]) -> Chart:
    def paint(canvas) -> None:
        axes = canvas.subplots()
        for height, (method, runs) in enumerate(of.items()):
            own = color(comparison, method)
            if len(runs) >= FEWEST_BOXED:
                box(axes, runs, height, own)
            for value in runs:
                mark(axes.plot(value, height, "o", color=own, markersize=5)[0], f"{method}: {value:.2f} %", method)
        axes.set_xlabel(f"accuracy, % ({stage})")
        name_rows(axes, list(of))

    summary = "; ".join(
        f"{method}, {stage}: {min(runs):.1f} to {max(runs):.1f}, n = {len(runs)}" for method, runs in of.items() if runs
    )
    alt = f"Spread of accuracy over the seeds on {dataset}. {summary}."
    return Chart(f"Spread over the seeds: {dataset}, {stage}", alt, (HALF, 0.8 + ROW * len(of)), paint, dataset)


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


def learning_curves(comparison: Comparison, dataset: str) -> list[Chart]:
    """Draw each training run's loss, and its accuracy on validation images if it was measured, over the epochs."""
    runs = {method: comparison.select(method, dataset) for method in comparison.methods}
    found = []
    for key, label in LEARNED_BY_EPOCH.items():
        lines = {
            method: [[(row["epoch"], row[key]) for row in run.epochs if key in row] for run in own]
            for method, own in runs.items()
        }
        lines = {method: [line for line in own if line] for method, own in lines.items()}
        if any(len(line) > 1 for own in lines.values() for line in own):
            found.append(learning_curve(comparison, dataset, label, {m: own for m, own in lines.items() if own}))
    return found


def learning_curve(
    comparison: Comparison, dataset: str, label: str, lines: dict[str, list[list[tuple[float, float]]]]
) -> Chart:
    """Draw `lines`: method -> a line of (epoch, figure) per run."""
    ends = {method: mean(line[-1][1] for line in own) for method, own in lines.items()}

    def paint(canvas) -> None:
        axes = canvas.subplots()
        for method, own in lines.items():
            for line in own:
                look = looks(comparison.number(method)) | {"linewidth": 1.3, "alpha": 0.8}
                look |= {"markersize": 4} if len(line) == 1 else {"marker": ""}
                text = f"{method}: {line[-1][1]:.4g} after {line[-1][0]:.0f} epochs"
                mark(axes.plot(*zip(*line, strict=True), **look)[0], text, method)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid()
        label_ends(axes, comparison, ends)

    summary = "; ".join(f"{method}: {end:.4g}" for method, end in ends.items())
    alt = f"{label} over the epochs on {dataset}, a line per training run. Means of the last epoch: {summary}."
    return Chart(f"Learning: {dataset}, {label}", alt, (HALF, labeled(len(lines))), paint, dataset)


def costs(comparison: Comparison) -> list[Chart]:
    """Draw the methods' measure, averaged over the datasets, against each cost: with the most shots, both of them."""
    if not comparison.averaged:
        return []
    place = AVERAGE if len(comparison.averaged) > 1 else comparison.averaged[0]
    heights = {method: comparison.mean(method, place) for method in comparison.methods}
    heights = {method: value for method, value in heights.items() if value is not None}
    if len(heights.keys() - comparison.untrained) < 2:
        return []
    found = []
    for label, figure in COSTS.items():
        known = {method: typical(comparison, method, figure) for method in heights.keys() - comparison.untrained}
        placed = {method: cost for method in heights if (cost := known.get(method))}
        if placed:
            found.append(one_cost(comparison, place, heights, label, placed))
    return found


def one_cost(
    comparison: Comparison, place: str, heights: dict[str, float], label: str, placed: dict[str, float]
) -> Chart:
    def paint(canvas) -> None:
        axes = canvas.subplots()
        for method, cost in placed.items():
            [point] = axes.plot(cost, heights[method], "o", color=color(comparison, method), markersize=8, zorder=3)
            mark(point, f"{method}: {heights[method]:.2f} % with {cost:,.6g} {label}", method)
        for method in [each for each in heights if each in comparison.untrained]:
            line = axes.axhline(heights[method], color=color(comparison, method), linestyle="--", linewidth=1.4)
            mark(line, f"{method}: {heights[method]:.2f} %", method)
        if max(placed.values()) > DECADE * min(placed.values()):
            axes.margins(x=0.12)
            axes.set_xscale("log")
        else:
            axes.set_xlim(0, 1.12 * max(placed.values()))
        axes.xaxis.set_major_formatter("{x:,.10g}")
        axes.set_xlabel(label)
        axes.set_ylabel(f"{comparison.measure}, %")
        axes.grid()
        label_points(axes, comparison, {method: (cost, heights[method]) for method, cost in placed.items()})

    summary = "; ".join(
        f"{method}: {value:.2f} %" + (f" with {placed[method]:,.6g}" if method in placed else "")
        for method, value in heights.items()
    )
    alt = f"{comparison.measure} ({place}) against {label}, medians over the training runs. {summary}."
    return Chart(f"{comparison.measure} against {label}", alt, (HALF, labeled(len(placed))), paint)


def typical(comparison: Comparison, method: str, figure: Callable[[dict], float | None]) -> float | None:
    """Return the median of a figure in the results.json of a method's training runs with the most shots.

    They are the runs that `Comparison.mean` averages. None if no run recorded it.
    """
    runs = [run for dataset in comparison.averaged for run in comparison.select(method, dataset)]
    values = [value for run in runs if not run.job.source and (value := figure(run.result)) is not None]
    return median(values) if values else None


def label_point(axes: Axes, text: str, point: tuple[float, float], height: float, own: str) -> None:
    """Write a label to the right of the axes at a height (in data units), with a line to its point."""
    label = axes.annotate(
        text,
        point,
        (1.04, height),
        textcoords=("axes fraction", "data"),
        va="center",
        color=own,
        arrowprops={"arrowstyle": "-", "color": GRID, "shrinkA": 0, "shrinkB": 5},
    )
    mark(label, "", text)
