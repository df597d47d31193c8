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
from promptlearn.report.charts import ROW, WIDTH, color
from promptlearn.report.drawing import FROZEN, GAIN, INK, LEARNED, LOSS, MUTED, Chart, draw, name_cells, short, tiles
from promptlearn.report.runs import Comparison, Run

MAX_CLASSES = 20  # in a confusion matrix
MAX_NAMES = 14  # classes with names next to it
PANELS = 5  # in a row
TOP = 3  # confusions listed per method
EXAMPLES = 5  # images in a row
SIDE = 112  # pixels of a thumbnail
LOSSLESS = 64  # pixels: images up to this size are stored without loss
MAX_COLUMNS = 32  # classes whose gains are drawn
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
    largest = sorted(moves, key=moves.get, reverse=True)[:MAX_COLUMNS]
    shown = [each for each in classes if each in largest]
    most = max(moves.values()) or 1.0

    def paint(canvas) -> None:
        axes = canvas.subplots()
        for y, method in enumerate(reversed(methods)):
            for x, each in enumerate(shown):
                gain = gains.get((method, each))
                if gain is None:
                    continue
                tint = (GAIN if gain > 0 else LOSS, 0.75 * abs(gain) / most)
                axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=tint, edgecolor="none"))
                axes.text(x, y, f"{gain:+.0f}" if round(gain) else "0", ha="center", va="center", fontsize=8)
        axes.set_xlim(-0.6, len(shown) - 0.4)
        axes.set_ylim(-0.6, len(methods) - 0.4)
        name_cells(axes, methods[::-1], [short(name) for _, name in shown])
        for edge in range(1, len(shown)):
            if shown[edge - 1][0] != shown[edge][0]:  # the next stage
                axes.axvline(edge - 0.5, color=MUTED, linewidth=1)

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
    return draw(title, alt, (WIDTH, 1.2 + ROW * 1.1 * len(methods)), paint, wide=True)


def per_class(comparison: Comparison, method: str, dataset: str, stage: str) -> dict[str, float]:
    """Return {class name: accuracy in percent, mean over the seeds}."""
    seeds: dict[str, list[float]] = {}
    for run in comparison.select(method, dataset, stage):
        for name, of_class in run.result["metrics"].get("per_class", {}).items():
            seeds.setdefault(name, []).append(of_class["accuracy"])
    return {name: statistics.mean(values) for name, values in seeds.items()}


def confusion(comparison: Comparison, methods: list[str], dataset: str, stage: str) -> Chart | None:
    """Draw the confusion matrices of each method's first seed: rows are true classes, columns predictions."""
    counted, labels = {}, {}
    for method in methods:
        for run in comparison.select(method, dataset, stage)[:1]:
            rows = run.predictions
            counted[method] = Counter((row["classname"], row["predicted_classname"]) for row in rows)
            for row in rows:
                labels[row["classname"]] = int(row["label"])
                labels[row["predicted_classname"]] = int(row["predicted"])
    counted = {method: count for method, count in counted.items() if count}
    if not counted:
        return None
    wrong = Counter()
    for count in counted.values():
        for (truth, predicted), number in count.items():
            if truth != predicted:
                wrong.update({truth: number, predicted: number})
    order = sorted(labels, key=labels.get)
    shown = order if len(order) <= MAX_CLASSES else dict(wrong.most_common(MAX_CLASSES))
    names = [name for name in order if name in shown]
    lines = -(-len(counted) // PANELS)

    def paint(canvas) -> None:
        panels = tiles(canvas, len(counted), PANELS)
        for axes, (method, count) in zip(panels, counted.items(), strict=True):
            for y, truth in enumerate(names):
                total = sum(number for (own, _), number in count.items() if own == truth)
                for x, predicted in enumerate(names):
                    share = count[truth, predicted] / total if total else 0
                    if share:
                        tint = (FROZEN if truth == predicted else LEARNED, 0.12 + 0.88 * share)
                        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=tint, linewidth=0))
            axes.set_xlim(-0.5, len(names) - 0.5)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_aspect("equal")
            axes.set_title(method)
            axes.spines[:].set_visible(True)
            named = names if len(names) <= MAX_NAMES else []
            axes.set_yticks(range(len(named)), map(short, named))
            axes.set_xticks(range(len(named)), map(short, named), rotation=90)
            axes.tick_params(length=0, labelsize=7.5)

    title = f"Confusion: {dataset}, {stage}"
    if len(names) < len(order):
        title += f" (the {len(names)} of {len(order)} classes confused most)"
    summary = "; ".join(
        f"{method}: {100 * sum(n for (a, b), n in count.items() if a == b) / count.total():.1f}% correct"
        for method, count in counted.items()
    )
    alt = f"Confusion matrices on {dataset}, {stage}; rows: true class, columns: prediction. {summary}."
    return draw(title, alt, (WIDTH, 0.3 + 2.5 * lines), paint, wide=True)


def reliability_diagrams(comparison: Comparison, methods: list[str], dataset: str, stage: str) -> Chart | None:
    """Draw accuracy against confidence for each method's first seed."""
    binned: dict[str, list[tuple[float, float, float]]] = {}  # (predictions, mean confidence, accuracy) of each bin
    errors: dict[str, float] = {}
    for method in methods:
        for run in comparison.select(method, dataset, stage)[:1]:
            rows = [row for row in run.predictions if int(row["predicted"]) >= 0]  # readable images
            if rows:
                confidence = torch.tensor([float(row["confidence"]) for row in rows], dtype=torch.float64)
                correct = torch.tensor([is_correct(row) for row in rows])
                sums = zip(*(total.tolist() for total in reliability(confidence, correct)), strict=True)
                binned[method] = [(n, own / max(n, 1), hits / max(n, 1)) for n, own, hits in sums]
                errors[method] = 100 * calibration_error(confidence, correct)
    if not binned:
        return None
    lines = -(-len(binned) // PANELS)

    def paint(canvas) -> None:
        panels = tiles(canvas, len(binned), PANELS, sharex=True, sharey=True)
        for axes, (method, bins) in zip(panels, binned.items(), strict=True):
            own, width, most = color(comparison, method), 1 / len(bins), max(n for n, _, _ in bins)
            axes.plot([0, 1], [0, 1], linestyle="--", color=MUTED, linewidth=1)
            for number, (n, confidence, accuracy) in enumerate(bins):
                if n:
                    axes.bar((number + 0.5) * width, accuracy, 0.92 * width, color=own, alpha=0.2 + 0.6 * n / most)
                    axes.plot([confidence, confidence], [confidence, accuracy], color=INK, linewidth=1.2)
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
            axes.set_aspect("equal")
            axes.set_title(f"{method}\nECE {errors[method]:.1f}%")
            axes.set_xlabel("confidence")
            axes.tick_params(labelsize=7.5)
        panels[0].set_ylabel("accuracy")

    summary = "; ".join(
        f"{method}: expected calibration error {errors[method]:.1f}%, mean confidence "
        f"{100 * mean_of(bins, 1):.1f}%, accuracy {100 * mean_of(bins, 2):.1f}%"
        for method, bins in binned.items()
    )
    alt = f"Reliability diagrams on {dataset}, {stage}: accuracy of the predictions by confidence. {summary}."
    return draw(f"Reliability: {dataset}, {stage}", alt, (WIDTH, 0.3 + 2.7 * lines), paint, wide=True)


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
