"""Pictures of models from inside: who reads whom, and image features before and after."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from dassl.experiments.report.charts import HALF, WIDTH
from dassl.experiments.report.drawing import (
    FROZEN,
    GRID,
    LEARNED,
    MARKERS,
    MUTED,
    Picture,
    draw,
    plain_axes,
    series,
)
from dassl.experiments.report.explained import Explanation

MOST_TOKENS = 6  # drawn of one group of tokens
GAP = 0.35  # between groups, in tokens
PANELS = 4  # in a row


def who_reads_whom(method: str, explanation: Explanation) -> Picture:
    """The scenes of both towers as matrices: rows read columns (RPO, arXiv 2308.14960, figure 4)."""
    scenes = [(side, scene) for side, tower in explanation.towers.items() for scene in tower["scenes"]]
    columns = min(len(scenes), 2)
    rows = -(-len(scenes) // columns)

    def paint(canvas) -> None:
        panels = canvas.subplots(rows, columns, squeeze=False).flat
        for axes, (side, scene) in zip(panels, scenes, strict=False):
            matrix(axes, scene)
            axes.set_title(f"{side} side", pad=12)
            axes.set_xlabel("\n".join(notes(scene, explanation.towers[side]["layers"])), fontsize=8)

    said = "; ".join(f"{side} side: {', '.join(sentences(scene))}" for side, scene in scenes)
    return draw(f"Who reads whom: {method}", f"{method}. {said}.", (HALF, 0.5 + 2.5 * rows), paint)


def groups(scene: list[dict]) -> list[tuple[dict, int, int, bool]]:
    """Neighbouring tokens of one segment that are alike: (segment, first, number, whether they are learned)."""
    found = []
    for segment in scene:
        first = 0
        for learned, tokens in itertools.groupby(segment["learned"]):
            number = len(list(tokens))
            found.append((segment, first, number, learned))
            first += number
    return found


def matrix(axes: Axes, scene: list[dict]) -> None:
    """A square for each pair of tokens: filled where the row's token reads the column's."""
    cells, labels, at = [], [], 0.0  # of the tokens drawn: (place, segment, position, learned)
    for segment, first, number, learned in groups(scene):
        shown = min(number, MOST_TOKENS)
        cells += [(at + i, segment, first + i, learned) for i in range(shown)]
        labels.append((at + (shown - 1) / 2, f"{segment['name']} ({number})", learned))
        at += shown + GAP
    for y, reader, own, _ in cells:
        for x, other, position, learned in cells:
            reads = other["name"] in reader["reads"]
            if reads and reader is other and reader["causal"]:
                reads = position <= own
            square = (x - 0.44, -y - 0.44), 0.88, 0.88
            if reads:
                axes.add_patch(Rectangle(*square, facecolor=LEARNED if learned else FROZEN, linewidth=0))
            else:
                axes.add_patch(Rectangle(*square, facecolor="none", edgecolor=GRID, linewidth=0.6))
    axes.set_xlim(-0.8, at)
    axes.set_ylim(-at, 0.8)
    axes.set_aspect("equal")
    plain_axes(axes)
    axes.set_yticks([-place for place, *_ in labels], [text for _, text, _ in labels])
    axes.set_xticks([place for place, *_ in labels], [text for _, text, _ in labels], rotation=30, ha="left")
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=8.5, pad=1)
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        for tick, (*_, learned) in zip(ticks, labels, strict=True):
            tick.set_color(LEARNED if learned else FROZEN)


def notes(scene: list[dict], layers: int) -> list[str]:
    """What happens to segments between the layers, a line each."""
    found = []
    for segment in scene:
        name = segment["name"]
        if segment["remembered"]:
            found.append(f"{name}: runs once without gradients, then is only read")
        if segment["replaced"]:
            found.append(f"{name}: new learned vectors before layers 2 to {segment['replaced'] + 1} of {layers}")
        if segment["rewritten"]:
            numbers = ", ".join(str(depth + 1) for depth in segment["rewritten"])
            found.append(f"{name}: rewritten before layers {numbers} of {layers}")
    return found


def sentences(scene: list[dict]) -> list[str]:
    """Who reads whom in words."""
    found = []
    for segment in scene:
        what = "learned" if all(segment["learned"]) else "partly learned" if any(segment["learned"]) else "frozen"
        whom = [name if name != segment["name"] else "itself" for name in segment["reads"]] or ["nobody"]
        found.append(f"{segment['name']} ({segment['tokens']} tokens, {what}) reads {' and '.join(whom)}")
    return found


def features(explained: dict[str, Explanation], dataset: str) -> tuple[Picture | None, list[str]]:
    """t-SNE of the same test images' features in frozen CLIP and in each method that changes them.

    Args:
        explained: method -> what its run left; all of one data set.

    Returns:
        The picture (None: no method changes a feature), and the methods that leave the features as they are.
    """
    changed = {method: e.features for method, e in explained.items() if moves(e.features)}
    same = [method for method in explained if method not in changed]
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
                axes.scatter(*own.T, s=11, linewidths=0, label=name, **look)
            axes.set_title(method)
            axes.set_aspect("equal", adjustable="datalim")
            for spine in axes.spines.values():
                spine.set_visible(True)
        legend = canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
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
