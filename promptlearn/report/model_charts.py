"""Pictures of models from inside: who reads whom, and image features before and after."""

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
    Picture,
    draw,
    plain_axes,
    series,
    short,
)
from promptlearn.report.explanations import Explanation

MOST_TOKENS = 5  # drawn of one group of tokens
GAP = 0.35  # between groups, in tokens
TOKEN = 0.135  # inches: a token's square with its margin
LEFT, TOP, LINE = 6.8, 5.4, 1.35  # room in tokens: for names at the left and above, for a line of notes below
LETTERS = 42  # of a line of notes
PANELS = 4  # in a row


def who_reads_whom(method: str, explanation: Explanation) -> Picture:
    """The scenes of both towers as matrices: rows read columns (RPO, arXiv 2308.14960, figure 4).

    The text side stands at the left, the image side at the right; several scenes of one side below each other.
    """
    sides = [(f"{side} side", tower["scenes"], tower["layers"]) for side, tower in explanation.towers.items()]
    said = {id(scene): notes(scene, layers) for _, scenes, layers in sides for scene in scenes}
    heights = [sum(TOP + extent(s) + LINE * len(said[id(s)]) + 1 for s in scenes) for _, scenes, _ in sides]
    height, width = max(heights, default=1), HALF / TOKEN
    widest = max((extent(scene) for scene in sides[0][1]), default=0)
    places = [0, max(width / 2, LEFT + widest + 1.5)]

    def paint(canvas) -> None:
        canvas.set_layout_engine("none")  # every square has the same size in every picture
        axes = canvas.add_axes((0, 0, 1, 1))
        for x, (title, scenes, _) in zip(places, sides, strict=False):
            y = 0.0
            axes.text(x + LEFT, y, title, fontweight="bold", va="top")
            for scene in scenes:
                matrix(axes, scene, x + LEFT, y - TOP)
                y -= TOP + extent(scene)
                for line in said[id(scene)]:
                    axes.text(x + 0.5, y - LINE / 2, line, color=MUTED, fontsize=7.5, va="center")
                    y -= LINE
                y -= 1
        axes.set_xlim(0, width)
        axes.set_ylim(-height, 0.5)
        axes.set_axis_off()

    whole = "; ".join(f"{title}: {', '.join(sentences(scene))}" for title, scenes, _ in sides for scene in scenes)
    return draw(f"Who reads whom: {method}", f"{method}. {whole}.", (HALF, (height + 0.5) * TOKEN), paint)


def extent(scene: list[dict]) -> float:
    """The side of a scene's matrix, in tokens."""
    return sum(min(number, MOST_TOKENS) + GAP for _, _, number, _ in spans(scene))


def spans(scene: list[dict]) -> list[tuple[dict, int, int, bool]]:
    """Neighbouring tokens of one segment that are alike: (segment, first, number, whether they are learned)."""
    found = []
    for segment in scene:
        first = 0
        for learned, tokens in itertools.groupby(segment["learned"]):
            number = len(list(tokens))
            found.append((segment, first, number, learned))
            first += number
    return found


def matrix(axes: Axes, scene: list[dict], left: float, top: float) -> None:
    """A square for each pair of tokens, filled where the row's token reads the column's. left, top: its corner."""
    cells, at = [], 0.0  # of the tokens drawn: (place, segment, position in it, learned)
    for segment, first, number, learned in spans(scene):
        shown = min(number, MOST_TOKENS)
        cells += [(at + i, segment, first + i, learned) for i in range(shown)]
        name, own, middle = f"{segment['name']} ({number})", LEARNED if learned else FROZEN, at + shown / 2
        axes.text(left - 0.5, top - middle, name, color=own, fontsize=8.5, ha="right", va="center")
        above = {"rotation": 35, "rotation_mode": "anchor", "ha": "left", "va": "bottom"}
        axes.text(left + middle - 0.2, top + 0.4, name, color=own, fontsize=8.5, **above)
        at += shown + GAP
    for y, reader, own, _ in cells:
        for x, other, position, learned in cells:
            reads = other["name"] in reader["attends_to"]
            if reads and reader is other and reader["causal"]:
                reads = position <= own
            look = {"facecolor": LEARNED if learned else FROZEN, "linewidth": 0}
            look = look if reads else {"facecolor": "none", "edgecolor": GRID, "linewidth": 0.6}
            axes.add_patch(Rectangle((left + x + 0.07, top - y - 0.93), 0.86, 0.86, **look))


def notes(scene: list[dict], layers: int) -> list[str]:
    """What happens to segments between the layers, in lines."""
    found = []
    for segment in scene:
        if segment["prefilled"]:
            found.append(f"{segment['name']}: run once without gradients, then only read")
        if segment["replaced"]:
            which = numbers(range(1, segment["replaced"] + 1))
            found.append(f"{segment['name']}: new learned vectors before {which} of {layers}")
        if segment["rewritten"]:
            found.append(f"{segment['name']}: computed anew before {numbers(segment['rewritten'])} of {layers}")
    return [line for note in found for line in textwrap.wrap(note, LETTERS)]


def numbers(depths: Sequence[int]) -> str:
    """Layers, counted from 0, in words that count from 1."""
    if len(depths) == 1:
        return f"layer {depths[0] + 1}"
    if list(depths) == list(range(depths[0], depths[-1] + 1)):
        return f"layers {depths[0] + 1} to {depths[-1] + 1}"
    return "layers " + ", ".join(str(depth + 1) for depth in depths)


def sentences(scene: list[dict]) -> list[str]:
    """Who reads whom in words."""
    found = []
    for segment in scene:
        what = "learned" if all(segment["learned"]) else "partly learned" if any(segment["learned"]) else "frozen"
        whom = [name if name != segment["name"] else "itself" for name in segment["attends_to"]] or ["nobody"]
        found.append(f"{segment['name']} ({segment['tokens']} tokens, {what}) reads {' and '.join(whom)}")
    return found


def features(explanations: dict[str, Explanation], dataset: str) -> tuple[Picture | None, list[str]]:
    """t-SNE of the same test images' features in frozen CLIP and in each method that changes them.

    Args:
        explanations: method -> what its run left; all of one data set.

    Returns:
        The picture (None: no method changes a feature), and the methods that leave the features as they are.
    """
    changed = {method: e.features for method, e in explanations.items() if moves(e.features)}
    same = [method for method in explanations if method not in changed]
    if not changed:
        return None, same
    first = next(iter(changed.values()))
    before = embed(first["before"])
    # From where the images were: what did not move then stays in its place on the paper too.
    layouts = {"frozen CLIP": before} | {method: embed(of["after"], before) for method, of in changed.items()}
    names = dict(zip(first["label"].tolist(), first["classname"].tolist(), strict=True))
    rows = -(-(len(layouts)) // PANELS)

    def paint(canvas) -> None:
        panels = list(canvas.subplots(rows, PANELS, squeeze=False).flat)
        for axes in panels:
            plain_axes(axes)
        for axes, (method, places) in zip(panels, layouts.items(), strict=False):
            for number, (label, name) in enumerate(names.items()):
                own = places[first["label"] == label]
                look = {"color": series(number), "marker": MARKERS[number % len(MARKERS)], "alpha": 0.75}
                axes.scatter(*own.T, s=11, linewidths=0, label=short(name), **look)
            axes.set_title(method)
            axes.set_aspect("equal", adjustable="datalim")
            for spine in axes.spines.values():
                spine.set_visible(True)
        legend = canvas.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, markerscale=2.2
        )
        for text in legend.get_texts():
            text.set_color(MUTED)

    alt = (
        f"t-SNE of {len(before)} test images of {dataset}, coloured by class ({', '.join(names.values())}): frozen "
        f"CLIP's features, then those of {', '.join(changed)}."
    )
    return draw(f"Image features: {dataset}", alt, (WIDTH, 0.5 + 2.7 * rows), paint, wide=True), same


def moves(arrays: dict[str, np.ndarray]) -> bool:
    """Whether the features after are others than those before."""
    before, after = arrays["before"], arrays["after"]
    return before.shape != after.shape or not np.allclose(before, after, atol=1e-3)  # they are kept in half precision


def embed(vectors: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """t-SNE in two dimensions: (N, D) -> (N, 2), from the principal components or from given places (N, 2)."""
    from sklearn.manifold import TSNE  # here, because importing scikit-learn takes a second

    perplexity = min(30, (len(vectors) - 1) / 3)
    # As scikit-learn scales its own start: small, so that early steps are free.
    init = "pca" if start is None else (start / start[:, 0].std() * 1e-4).astype(np.float32)
    return TSNE(perplexity=perplexity, init=init, random_state=0).fit_transform(vectors.astype(np.float32))
