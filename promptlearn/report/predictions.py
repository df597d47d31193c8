"""Predictions by class and by image: gains over zero-shot CLIP, confusions, example images."""

import base64
import io
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.patches import Rectangle

from basics import UserError
from dassl.metrics import calibration_error, reliability
from dassl.utils import read_image
from promptlearn.report.charts import ROW, color
from promptlearn.report.drawing import (
    FROZEN,
    GAIN,
    HALF,
    INK,
    LEARNED,
    LOSS,
    MUTED,
    THIRD,
    WIDTH,
    Chart,
    add_cell,
    mark,
    name_cells,
    short,
    write_inside,
)
from promptlearn.report.runs import Comparison, Run

MAX_CLASSES = 20  # in a confusion matrix
SCALE = 5  # steps of its scale of colors
FEW_CLASSES = 10  # whose matrix is small
DIGIT = 0.085  # inches
FEW_METHODS = 8  # whose gains fit into half the page
TOP = 3  # confusions listed per method
EXAMPLES = 5  # images in a row
SIDE = 112  # pixels of a thumbnail
LOSSLESS = 64  # pixels: images up to this size are stored without loss
MAX_ROWS = 32  # classes whose gains are drawn
MAX_STAGES = 2  # shown in detail: base and new, or the source and the first target


@dataclass(frozen=True)
class Example:
    """A test image with a prediction."""

    image: str  # data: URL
    truth: str
    predicted: str
    confidence: float

    @property
    def correct(self) -> bool:
        return self.truth == self.predicted


def class_gains(comparison: Comparison, dataset: str) -> Chart | None:
    """Draw each method's gain over zero-shot CLIP in each class, in percentage points, mean over the seeds."""
    gains: dict[tuple[str, tuple[str, str]], float] = {}  # of methods and classes
    classes: list[tuple[str, str]] = []  # (stage, name): two tests may have the same classes
    for stage in comparison.stages[:MAX_STAGES]:
        before = per_class(comparison, comparison.zero_shot, dataset, stage)
        classes += [(stage, name) for name in before]
        for method in comparison.methods:
            after = per_class(comparison, method, dataset, stage)
            gains |= {(method, (stage, name)): after[name] - before[name] for name in before if name in after}
    gains = {(method, each): gain for (method, each), gain in gains.items() if method != comparison.zero_shot}
    methods = [m for m in comparison.methods if any((m, each) in gains for each in classes)]
    if not methods:
        return None
    moves = {each: max(abs(gains.get((method, each), 0)) for method in methods) for each in classes}
    largest = sorted(moves, key=moves.get, reverse=True)[:MAX_ROWS]
    shown = [each for each in classes if each in largest]
    most = max(moves.values()) or 1.0

    def paint(canvas) -> None:
        axes = canvas.subplots()
        for x, method in enumerate(methods):
            for y, (stage, name) in enumerate(shown):
                gain = gains.get((method, (stage, name)))
                if gain is None:
                    continue
                tint = (GAIN if gain > 0 else LOSS, 0.75 * abs(gain) / most)
                square = Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=tint, edgecolor="none")
                add_cell(axes, square, f"{method}, {stage}, {name}: {gain:+.1f}", method)
                mark(write_inside(axes, x, y, f"{gain:+.0f}" if round(gain) else "0"), "", method)
        axes.set_xlim(-0.6, len(methods) - 0.4)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        name_cells(axes, [short(name) for _, name in shown], methods)
        for edge in range(1, len(shown)):
            if shown[edge - 1][0] != shown[edge][0]:  # the next stage
                axes.axhline(edge - 0.5, color=MUTED, linewidth=1)

    extremes = sorted(gains.items(), key=lambda item: item[1])
    (worst_method, (_, worst)), low = extremes[0]
    (best_method, (_, best)), high = extremes[-1]
    alt = (
        f"Gains and losses of each class over zero-shot CLIP on {dataset}, in percentage points: from {low:+.1f} "
        f"({worst_method} on {worst}) to {high:+.1f} ({best_method} on {best})."
    )
    title = f"Gains and losses per class over zero-shot CLIP: {dataset}"
    if len(shown) < len(classes):
        title += f" (the {len(shown)} of {len(classes)} classes that change most)"
    width = HALF if len(methods) <= FEW_METHODS else WIDTH
    return Chart(title, alt, (width, 1 + 0.9 * ROW * len(shown)), paint, dataset)


def per_class(comparison: Comparison, method: str, dataset: str, stage: str) -> dict[str, float]:
    """Return {class name: accuracy in percent, mean over the seeds}."""
    seeds: dict[str, list[float]] = {}
    for run in comparison.select(method, dataset, stage):
        for name, of_class in run.result["metrics"].get("per_class", {}).items():
            seeds.setdefault(name, []).append(of_class["accuracy"])
    return {name: statistics.mean(values) for name, values in seeds.items()}


def confusions(comparison: Comparison, methods: list[str], dataset: str, stage: str) -> list[Chart]:
    """Draw the confusion matrix of each method's first seed: rows are true classes, columns predictions."""
    counted, labels = {}, {}
    for method in methods:
        for run in comparison.select(method, dataset, stage)[:1]:
            rows = run.predictions
            counted[method] = Counter((row["classname"], row["predicted_classname"]) for row in rows)
            for row in rows:
                labels[row["classname"]] = int(row["label"])
                labels[row["predicted_classname"]] = int(row["predicted"])
    wrong = Counter()
    for count in counted.values():
        for (truth, predicted), number in count.items():
            if truth != predicted:
                wrong.update({truth: number, predicted: number})
    order = sorted(labels, key=labels.get)
    shown = order if len(order) <= MAX_CLASSES else dict(wrong.most_common(MAX_CLASSES))
    names = [name for name in order if name in shown]
    note = f" (the {len(names)} of {len(order)} classes confused most)" if len(names) < len(order) else ""
    title = f"Confusion: {dataset}, {stage}, "
    return [
        confusion(f"{title}{method}{note}", dataset, method, names, count) for method, count in counted.items() if count
    ]


def confusion(title: str, dataset: str, method: str, names: list[str], count: Counter) -> Chart:
    """Draw the counted pairs (true class, prediction) of the named classes, with a scale of colors."""
    width = THIRD if len(names) <= FEW_CLASSES else HALF
    letters = max(len(str(number)) for number in count.values())
    has_room = letters * DIGIT * len(names) <= 0.65 * width
    totals: Counter = Counter()
    for (truth, _), number in count.items():
        totals[truth] += number
    strongest = 0.88  # so that a single image is still visible: opacity is 0.12 and this times the share

    def paint(canvas) -> None:
        axes, scale = canvas.subplots(1, 2, width_ratios=(24, 1))
        for y, truth in enumerate(names):
            total = totals[truth]
            for x, predicted in enumerate(names):
                number = count[truth, predicted]
                if not number:
                    continue
                tint = (FROZEN if truth == predicted else LEARNED, 0.12 + strongest * number / total)
                square = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=tint, linewidth=0)
                share = f"{number} of {total} {truth} ({100 * number / total:.0f} %)"
                add_cell(axes, square, f"{share} predicted as {predicted}")
                if has_room:
                    write_inside(axes, x, y, number)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.spines[:].set_visible(True)
        axes.set_yticks(range(len(names)), map(short, names))
        axes.set_xticks(range(len(names)), map(short, names), rotation=90)
        axes.tick_params(length=0)
        axes.set_ylabel("true class")
        axes.set_xlabel("prediction")
        for column, hue in enumerate((FROZEN, LEARNED)):
            for step in range(SCALE):
                tint = (hue, 0.12 + strongest * (step + 0.5) / SCALE)
                scale.add_patch(Rectangle((column, step / SCALE), 0.9, 1 / SCALE, facecolor=tint, linewidth=0))
        scale.set_xlim(0, 2)
        scale.set_ylim(0, 1)
        scale.set_xticks([])
        scale.set_yticks((0, 0.5, 1), ("0 %", "50 %", "100 %"))
        scale.yaxis.tick_right()
        scale.spines[:].set_visible(False)
        scale.tick_params(length=0)

    right = sum(number for (truth, predicted), number in count.items() if truth == predicted)
    share = 100 * right / count.total()
    alt = f"Confusion matrix of {method}; rows: true class, columns: prediction. {share:.1f}% correct."
    return Chart(title, alt, (width, 0.9 * width), paint, dataset, method)


def reliability_diagrams(comparison: Comparison, methods: list[str], dataset: str, stage: str) -> list[Chart]:
    """Draw accuracy against confidence for each method's first seed."""
    figures = []
    for method in methods:
        for run in comparison.select(method, dataset, stage)[:1]:
            rows = [row for row in run.predictions if int(row["predicted"]) >= 0]  # readable images
            if rows:
                confidence = torch.tensor([float(row["confidence"]) for row in rows], dtype=torch.float64)
                correct = torch.tensor([is_correct(row) for row in rows])
                sums = zip(*(total.tolist() for total in reliability(confidence, correct)), strict=True)
                bins = [(n, own / max(n, 1), hits / max(n, 1)) for n, own, hits in sums]
                error = 100 * calibration_error(confidence, correct)
                title = f"Reliability: {dataset}, {stage}, {method}"
                figures.append(reliability_diagram(title, dataset, method, color(comparison, method), bins, error))
    return figures


def reliability_diagram(
    title: str, dataset: str, method: str, own: str, bins: list[tuple[float, float, float]], error: float
) -> Chart:
    """Draw `bins` of (predictions, mean confidence, accuracy), with the expected calibration error in percent."""

    def paint(canvas) -> None:
        axes = canvas.subplots()
        width, most = 1 / len(bins), max(n for n, _, _ in bins)
        axes.plot([0, 1], [0, 1], linestyle="--", color=MUTED, linewidth=1)
        for number, (n, confidence, accuracy) in enumerate(bins):
            if n:
                alpha = 0.2 + 0.6 * n / most
                [bar] = axes.bar((number + 0.5) * width, accuracy, 0.92 * width, color=own, alpha=alpha)
                mark(bar, f"{n:.0f} predictions: confidence {100 * confidence:.1f} %, accuracy {100 * accuracy:.1f} %")
                axes.plot([confidence, confidence], [confidence, accuracy], color=INK, linewidth=1.2)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.text(0.04, 0.94, f"ECE {error:.1f} %", va="center")
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")

    alt = (
        f"{title}: accuracy of the predictions by confidence. Expected "
        f"calibration error {error:.1f}%, mean confidence {100 * mean_of(bins, 1):.1f}%, accuracy "
        f"{100 * mean_of(bins, 2):.1f}%."
    )
    return Chart(title, alt, (THIRD, 0.9 * THIRD), paint, dataset, method)


def mean_of(bins: list[tuple[float, float, float]], figure: int) -> float:
    """Return the mean of a figure of the bins over the predictions."""
    return sum(each[0] * each[figure] for each in bins) / sum(n for n, _, _ in bins)


def frequent_confusions(run: Run) -> list[tuple[str, str, int, float]]:
    """List the pairs of classes confused most: (true class, prediction, images, their share of the class in %)."""
    rows = run.predictions
    classes = Counter(row["classname"] for row in rows)
    pairs = Counter((row["classname"], row["predicted_classname"]) for row in rows if row["label"] != row["predicted"])
    return [(truth, predicted, n, 100 * n / classes[truth]) for (truth, predicted), n in pairs.most_common(TOP)]


def examples(run: Run, zero_shot: Run | None) -> dict[str, list[Example]]:
    """Test images of a run by kind (correct, wrong), the most confident predictions first.

    Empty if the image files are no longer there.
    """
    rows = sorted(run.predictions, key=lambda row: float(row["confidence"]), reverse=True)
    kinds = {"correct": is_correct, "wrong": lambda row: not is_correct(row)}
    if zero_shot:
        missed = {row["impath"] for row in zero_shot.predictions if not is_correct(row)}
        gained = {"correct where zero-shot CLIP is wrong": lambda row: is_correct(row) and row["impath"] in missed}
        kinds = gained | {"wrong": kinds["wrong"]}
    folder = Path(run.result.get("dataset_dir") or "").resolve()
    found = {}
    for kind, fits in kinds.items():
        found[kind] = []
        for row in filter(fits, rows):
            path = (folder / row["impath"]).resolve()
            image = thumbnail(path) if path.is_relative_to(folder) else None
            if image:
                labels = row["classname"], row["predicted_classname"]
                found[kind].append(Example(image, *labels, float(row["confidence"])))
            if image is None or len(found[kind]) == EXAMPLES:
                break  # the dataset is not here, or there are enough
    return {kind: shown for kind, shown in found.items() if shown}


def is_correct(row: dict) -> bool:
    return row["label"] == row["predicted"]


def thumbnail(path: Path) -> str | None:
    """Return a small copy of an image file as a data: URL, None if it cannot be read."""
    try:
        image = read_image(str(path))
    except UserError:
        return None
    kind, options = ("PNG", {}) if max(image.size) <= LOSSLESS else ("JPEG", {"quality": 82})
    image.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    image.save(data, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"
