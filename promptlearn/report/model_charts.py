"""Charts of models: attention patterns, and image features before and after training."""

import itertools
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from promptlearn.report.drawing import (
    FROZEN,
    GRID,
    HALF,
    LEARNED,
    MARKERS,
    MUTED,
    THIRD,
    Chart,
    mark,
    plain_axes,
    series,
    short,
)
from promptlearn.report.explanations import Explanation

MAX_TOKENS = 5  # drawn of one span of tokens
GAP = 0.35  # between spans, in tokens
TOKEN = 0.135  # inches: a token's square with its margin
LEFT, TOP, LINE = 11, 7, 1.35  # in tokens: space for names on the left and above, and for a line of notes below
LETTERS = 70  # in a line of notes
# Names of segments for a reader: of their frozen and of their learned tokens
READABLE = {
    "start": ("start token", "context"),
    "ctx": ("context", "context"),
    "inserted": ("inserted tokens", "inserted prompts"),
    "shared": ("shared words", "shared words"),
    "rest": ("class words, end", "class words, end"),
    "words": ("words", "words"),
    "image": ("CLS, patches", "CLS, patches"),
}


def attention_patterns(method: str, dataset: str, explanation: Explanation) -> list[Chart]:
    """Draw each tower's attention patterns as matrices: rows attend to columns (RPO, arXiv 2308.14960, figure 4)."""
    return [attention_pattern(method, dataset, f"{side} side", tower) for side, tower in explanation.towers.items()]


def attention_pattern(method: str, dataset: str, side: str, tower: dict) -> Chart:
    """Draw the scenes of one tower below each other."""
    lines = [notes(scene, tower["layers"]) for scene in tower["scenes"]]
    heights = [TOP + extent(scene) + LINE * len(of) + 1 for scene, of in zip(tower["scenes"], lines, strict=True)]
    height, width = sum(heights) or 1, HALF / TOKEN

    def paint(canvas) -> None:
        canvas.set_layout_engine("none")  # squares have the same size in every chart
        axes, y = canvas.add_axes((0, 0, 1, 1)), 0.0
        for scene, of in zip(tower["scenes"], lines, strict=True):
            matrix(axes, scene, LEFT, y - TOP)
            y -= TOP + extent(scene)
            for line in of:
                axes.text(0.5, y - LINE / 2, line, color=MUTED, va="center")
                y -= LINE
            y -= 1
        axes.set_xlim(0, width)
        axes.set_ylim(-height, 0.5)
        axes.set_axis_off()

    alt = f"{method}, {side}: {'; '.join(', '.join(sentences(scene)) for scene in tower['scenes'])}."
    title, size = f"Attention pattern: {dataset}, {method}, {side}", (HALF, (height + 0.5) * TOKEN)
    return Chart(title, alt, size, paint, dataset, method, rigid=True)


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
        name, color, middle = (
            f"{readable(segment['name'], learned)} ({number})",
            LEARNED if learned else FROZEN,
            at + shown / 2,
        )
        axes.text(left - 0.5, top - middle, name, color=color, ha="right", va="center")
        above = {"rotation": 40, "rotation_mode": "anchor", "ha": "left", "va": "bottom"}
        axes.text(left + middle - 0.2, top + 0.4, name, color=color, **above)
        at += shown + GAP
    for y, segment, position, _ in cells:
        for x, other, other_position, learned in cells:
            attends = other["name"] in segment["attends_to"]
            if attends and segment is other and segment["causal"]:
                attends = other_position <= position
            look = {"facecolor": LEARNED if learned else FROZEN, "linewidth": 0}
            look = look if attends else {"facecolor": "none", "edgecolor": GRID, "linewidth": 0.6}
            axes.add_patch(Rectangle((left + x + 0.07, top - y - 0.93), 0.86, 0.86, **look))


def readable(name: str, learned: bool) -> str:
    """Name a segment's tokens for a reader; the code's names of others are readable."""
    return READABLE.get(name, (name, name))[learned]


def notes(scene: list[dict], layers: int) -> list[str]:
    """Describe what happens to segments between layers, line by line."""
    found = []
    for segment in scene:
        name = readable(segment["name"], any(segment["learned"]))
        if segment["prefilled"]:
            found.append(f"{name}: run once without gradients, then cached")
        first = segment.get("first_layer", 0)  # absent in older files
        if first:
            found.append(f"{name}: joins before {numbers([first])} of {layers}")
        if segment["replaced"]:
            which = numbers(range(first + 1, first + segment["replaced"] + 1))
            found.append(f"{name}: new learned vectors before {which} of {layers}")
        if segment["rewritten"]:
            found.append(f"{name}: recomputed before {numbers(segment['rewritten'])} of {layers}")
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


def features(explanations: dict[str, Explanation], dataset: str) -> tuple[list[Chart], list[str]]:
    """Draw t-SNE of the same test images' features in frozen CLIP and in each method that changes them.

    Args:
        explanations: method -> explanation; all on the same test images.

    Returns:
        The charts (none if no method changes a feature), and the methods that leave the features unchanged.
    """
    changed = {method: e.features for method, e in explanations.items() if changes(e.features)}
    same = [method for method in explanations if method not in changed]
    if not changed:
        return [], same
    first = next(iter(changed.values()))
    before = embed(first["before"])
    # Start from frozen CLIP's layout: what does not move stays in place in the chart, too.
    layouts = {"frozen CLIP": before} | {method: embed(of["after"], before) for method, of in changed.items()}
    names = dict(zip(first["label"].tolist(), first["classname"].tolist(), strict=True))
    return [one_layout(dataset, method, places, first["label"], names) for method, places in layouts.items()], same


def one_layout(dataset: str, method: str, places: np.ndarray, labels: np.ndarray, names: dict[int, str]) -> Chart:
    def paint(canvas) -> None:
        axes = canvas.subplots()
        for number, (label, name) in enumerate(names.items()):
            own = places[labels == label]
            look = {"color": series(number), "marker": MARKERS[number % len(MARKERS)], "alpha": 0.75}
            mark(axes.scatter(*own.T, s=11, linewidths=0, **look), name)
            axes.text(*np.median(own, axis=0), short(name), ha="center", va="center", fontweight="bold")
        axes.set_aspect("equal", adjustable="datalim")
        plain_axes(axes)
        axes.spines[:].set_visible(True)

    alt = f"t-SNE of {len(places)} test images of {dataset} in {method}, colored by class: {', '.join(names.values())}."
    return Chart(f"Image features: {dataset}, {method}", alt, (THIRD, 0.9 * THIRD), paint, dataset, method)


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


def attention_maps(method: str, dataset: str, explanation: Explanation) -> list[Chart]:
    """Draw test images under the weights on their patches: a chart per image, a row per token, a column per layer."""
    maps = explanation.maps
    if not maps:
        return []
    attention = maps["attention"].astype(float)
    return [one_map(method, dataset, maps, attention[image], image) for image in range(len(attention))]


def one_map(method: str, dataset: str, maps: dict[str, np.ndarray], attention: np.ndarray, image: int) -> Chart:
    tokens, layers = attention.shape[:2]
    truth, predicted = str(maps["truth"][image]), str(maps["predicted"][image])

    def paint(canvas) -> None:
        panels = canvas.subplots(tokens, layers, squeeze=False)
        for token in range(tokens):
            panels[token, 0].set_ylabel(str(maps["tokens"][token]), rotation=0, ha="right", va="center")
            for column in range(layers):
                overlay(panels[token, column], maps["pictures"][image], attention[token, column])
        for column in range(layers):
            title = f"layer {maps['layers'][column]}" if not column else str(maps["layers"][column])
            panels[0, column].set_title(title, fontsize="medium", loc="center", fontweight="normal", color=MUTED)

    alt = (
        f"Where {', '.join(map(str, maps['tokens']))} of {method} attend to in a test image of {truth} (predicted "
        f"{predicted}), in layers {', '.join(map(str, maps['layers']))}. The largest weight on one patch is "
        f"{attention.max():.2f}."
    )
    answer = "correct" if truth == predicted else f"predicted {short(predicted)}"
    title = f"Where {method} looks: {dataset}, image {image + 1}, {short(truth)} ({answer})"
    return Chart(title, alt, (HALF, 0.3 + 0.85 * tokens), paint, dataset, method)


def overlay(axes: Axes, picture: np.ndarray, weights: np.ndarray) -> None:
    """Draw a gray picture (h, w) under weights (g, g); without any weight, the picture alone."""
    height, width = picture.shape
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    if weights.any():
        scale = {"cmap": "inferno", "vmin": 0, "vmax": weights.max(), "interpolation": "bilinear"}
        axes.imshow(weights, alpha=0.6, extent=(0, width, height, 0), **scale)
    plain_axes(axes)
