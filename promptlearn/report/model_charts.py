"""Charts of models: attention patterns, and image features before and after training."""

import itertools
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from promptlearn.report.charts import HALF, WIDTH
from promptlearn.report.drawing import (
    FROZEN,
    GRID,
    LEARNED,
    MARKERS,
    MUTED,
    Chart,
    draw,
    plain_axes,
    series,
    short,
    tiles,
)
from promptlearn.report.explanations import Explanation

IMAGES_IN_A_ROW = 2  # with attention maps
MAX_TOKENS = 5  # drawn of one span of tokens
GAP = 0.35  # between spans, in tokens
TOKEN = 0.135  # inches: a token's square with its margin
LEFT, TOP, LINE = 6.8, 5.4, 1.35  # in tokens: space for names on the left and above, and for a line of notes below
LETTERS = 42  # in a line of notes
PANELS = 4  # in a row


def attention_patterns(method: str, explanation: Explanation) -> Chart:
    """Draw both towers' attention patterns as matrices: rows attend to columns (RPO, arXiv 2308.14960, figure 4).

    The text side is on the left and the image side on the right, with several scenes of one side below each other.
    """
    sides = [(f"{side} side", tower["scenes"], tower["layers"]) for side, tower in explanation.towers.items()]
    lines_of = {id(scene): notes(scene, layers) for _, scenes, layers in sides for scene in scenes}
    heights = [sum(TOP + extent(s) + LINE * len(lines_of[id(s)]) + 1 for s in scenes) for _, scenes, _ in sides]
    height, width = max(heights, default=1), HALF / TOKEN
    widest = max((extent(scene) for scene in sides[0][1]), default=0)
    places = [0, max(width / 2, LEFT + widest + 1.5)]

    def paint(canvas) -> None:
        canvas.set_layout_engine("none")  # squares have the same size in every chart
        axes = canvas.add_axes((0, 0, 1, 1))
        for x, (title, scenes, _) in zip(places, sides, strict=False):
            y = 0.0
            axes.text(x + LEFT, y, title, fontweight="bold", va="top")
            for scene in scenes:
                matrix(axes, scene, x + LEFT, y - TOP)
                y -= TOP + extent(scene)
                for line in lines_of[id(scene)]:
                    axes.text(x + 0.5, y - LINE / 2, line, color=MUTED, fontsize=7.5, va="center")
                    y -= LINE
                y -= 1
        axes.set_xlim(0, width)
        axes.set_ylim(-height, 0.5)
        axes.set_axis_off()

    whole = "; ".join(f"{title}: {', '.join(sentences(scene))}" for title, scenes, _ in sides for scene in scenes)
    return draw(f"Attention pattern: {method}", f"{method}. {whole}.", (HALF, (height + 0.5) * TOKEN), paint)


def extent(scene: list[dict]) -> float:
    """Return the side length of a scene's matrix, in tokens."""
    return sum(min(number, MAX_TOKENS) + GAP for _, _, number, _ in spans(scene))


def spans(scene: list[dict]) -> list[tuple[dict, int, int, bool]]:
    """Group neighboring tokens that are all learned or all frozen: (segment, first, number, learned)."""
    found = []
    for segment in scene:
        first = 0
        for learned, tokens in itertools.groupby(segment["learned"]):
            number = len(list(tokens))
            found.append((segment, first, number, learned))
            first += number
    return found


def matrix(axes: Axes, scene: list[dict], left: float, top: float) -> None:
    """Draw a square for each pair of tokens from the corner (left, top), filled where the row attends to the column."""
    cells, at = [], 0.0  # of the tokens drawn: (offset, segment, position in the segment, learned)
    for segment, first, number, learned in spans(scene):
        shown = min(number, MAX_TOKENS)
        cells += [(at + i, segment, first + i, learned) for i in range(shown)]
        name, color, middle = f"{segment['name']} ({number})", LEARNED if learned else FROZEN, at + shown / 2
        axes.text(left - 0.5, top - middle, name, color=color, fontsize=8.5, ha="right", va="center")
        above = {"rotation": 35, "rotation_mode": "anchor", "ha": "left", "va": "bottom"}
        axes.text(left + middle - 0.2, top + 0.4, name, color=color, fontsize=8.5, **above)
        at += shown + GAP
    for y, segment, position, _ in cells:
        for x, other, other_position, learned in cells:
            attends = other["name"] in segment["attends_to"]
            if attends and segment is other and segment["causal"]:
                attends = other_position <= position
            look = {"facecolor": LEARNED if learned else FROZEN, "linewidth": 0}
            look = look if attends else {"facecolor": "none", "edgecolor": GRID, "linewidth": 0.6}
            axes.add_patch(Rectangle((left + x + 0.07, top - y - 0.93), 0.86, 0.86, **look))


def notes(scene: list[dict], layers: int) -> list[str]:
    """Describe what happens to segments between layers, line by line."""
    found = []
    for segment in scene:
        if segment["prefilled"]:
            found.append(f"{segment['name']}: run once without gradients, then cached")
        first = segment.get("first_layer", 0)  # absent in older files
        if first:
            found.append(f"{segment['name']}: joins before {numbers([first])} of {layers}")
        if segment["replaced"]:
            which = numbers(range(first + 1, first + segment["replaced"] + 1))
            found.append(f"{segment['name']}: new learned vectors before {which} of {layers}")
        if segment["rewritten"]:
            found.append(f"{segment['name']}: recomputed before {numbers(segment['rewritten'])} of {layers}")
    return [line for note in found for line in textwrap.wrap(note, LETTERS)]


def numbers(depths: Sequence[int]) -> str:
    """Write layer indices (from 0) in words that count from 1."""
    if len(depths) == 1:
        return f"layer {depths[0] + 1}"
    if list(depths) == list(range(depths[0], depths[-1] + 1)):
        return f"layers {depths[0] + 1} to {depths[-1] + 1}"
    return "layers " + ", ".join(str(depth + 1) for depth in depths)


def sentences(scene: list[dict]) -> list[str]:
    """Describe a scene's attention pattern in words."""
    found = []
    for segment in scene:
        what = "learned" if all(segment["learned"]) else "partly learned" if any(segment["learned"]) else "frozen"
        others = [name if name != segment["name"] else "itself" for name in segment["attends_to"]] or ["nothing"]
        found.append(f"{segment['name']} ({segment['tokens']} tokens, {what}) attends to {' and '.join(others)}")
    return found


def features(explanations: dict[str, Explanation], dataset: str) -> tuple[Chart | None, list[str]]:
    """Draw t-SNE of the same test images' features in frozen CLIP and in each method that changes them.

    Args:
        explanations: method -> explanation; all on the same test images.

    Returns:
        The chart (None if no method changes a feature), and the methods that leave the features unchanged.
    """
    changed = {method: e.features for method, e in explanations.items() if changes(e.features)}
    same = [method for method in explanations if method not in changed]
    if not changed:
        return None, same
    first = next(iter(changed.values()))
    before = embed(first["before"])
    # Start from frozen CLIP's layout: what does not move stays in place in the chart, too.
    layouts = {"frozen CLIP": before} | {method: embed(of["after"], before) for method, of in changed.items()}
    names = dict(zip(first["label"].tolist(), first["classname"].tolist(), strict=True))
    rows = -(-len(layouts) // PANELS)

    def paint(canvas) -> None:
        panels = tiles(canvas, len(layouts), PANELS)
        for axes, (method, places) in zip(panels, layouts.items(), strict=True):
            for number, (label, name) in enumerate(names.items()):
                own = places[first["label"] == label]
                look = {"color": series(number), "marker": MARKERS[number % len(MARKERS)], "alpha": 0.75}
                axes.scatter(*own.T, s=11, linewidths=0, label=short(name), **look)
            axes.set_title(method)
            axes.set_aspect("equal", adjustable="datalim")
            axes.spines[:].set_visible(True)
            axes.set_xticks([])
            axes.set_yticks([])
        legend = canvas.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, markerscale=2.2
        )
        for text in legend.get_texts():
            text.set_color(MUTED)

    alt = (
        f"t-SNE of {len(before)} test images of {dataset}, colored by class ({', '.join(names.values())}): frozen "
        f"CLIP's features, then those of {', '.join(changed)}."
    )
    return draw(f"Image features: {dataset}", alt, (WIDTH, 0.5 + 2.7 * rows), paint, wide=True), same


def changes(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the features after training differ from those before."""
    before, after = arrays["before"], arrays["after"]
    return before.shape != after.shape or not np.allclose(before, after, atol=1e-3)  # stored in half precision


def embed(vectors: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Embed vectors (N, D) by t-SNE: (N, 2), starting from principal components or from `start` (N, 2)."""
    from sklearn.manifold import TSNE  # slow to import

    perplexity = min(30, (len(vectors) - 1) / 3)
    # Small, like scikit-learn's own start, so that early steps can move freely.
    init = "pca" if start is None else (start / start[:, 0].std() * 1e-4).astype(np.float32)
    return TSNE(perplexity=perplexity, init=init, random_state=0).fit_transform(vectors.astype(np.float32))


def attention_maps(method: str, explanation: Explanation) -> Chart | None:
    """Draw test images under the weights on their patches: a block per image, a row per token, a column per layer."""
    maps = explanation.maps
    if not maps:
        return None
    attention, pictures = maps["attention"].astype(float), maps["pictures"]
    images, tokens, layers = attention.shape[:3]
    lines = -(-images // IMAGES_IN_A_ROW)
    names = [(str(truth), str(predicted)) for truth, predicted in zip(maps["truth"], maps["predicted"], strict=True)]

    def paint(canvas) -> None:
        blocks = canvas.subfigures(lines, IMAGES_IN_A_ROW, squeeze=False).flat
        for image, block in zip(range(images), blocks, strict=False):
            truth, predicted = names[image]
            answer = "correct" if truth == predicted else f"predicted {short(predicted)}"
            block.suptitle(f"{short(truth)} ({answer})", fontsize=9.5, x=0.02, ha="left")
            panels = block.subplots(tokens, layers, squeeze=False)
            for token in range(tokens):
                panels[token, 0].set_ylabel(
                    str(maps["tokens"][token]), fontsize=8.5, rotation=0, ha="right", va="center"
                )
                for column in range(layers):
                    overlay(panels[token, column], pictures[image], attention[image, token, column])
            for column in range(layers):
                title = f"layer {maps['layers'][column]}" if not column else str(maps["layers"][column])
                panels[0, column].set_title(title, fontsize=8.5, loc="center", fontweight="normal", color=MUTED)

    alt = (
        f"Where {', '.join(map(str, maps['tokens']))} of {method} attend to in {images} test images, in layers "
        f"{', '.join(map(str, maps['layers']))}: {'; '.join(f'{t} (predicted {p})' for t, p in names)}. The largest "
        f"weight on one patch is {attention.max():.2f}."
    )
    return draw(f"Where {method} looks", alt, (WIDTH, lines * (0.55 + 0.85 * tokens)), paint, wide=True)


def overlay(axes: Axes, picture: np.ndarray, weights: np.ndarray) -> None:
    """Draw a gray picture (h, w) under weights (g, g); without any weight, the picture alone."""
    height, width = picture.shape
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    if weights.any():
        scale = {"cmap": "inferno", "vmin": 0, "vmax": weights.max(), "interpolation": "bilinear"}
        axes.imshow(weights, alpha=0.6, extent=(0, width, height, 0), **scale)
    plain_axes(axes)
