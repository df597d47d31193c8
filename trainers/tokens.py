"""Tokens of a running tower: those that represent an image or a text, and prompts that are replaced between layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from clip import Segment, gather_tokens

SELECTIONS = ("highest", "lowest", "first")


def select_tokens(tokens: Tensor, n: int, by: str, same_places: bool = False) -> Tensor:
    """Select n tokens of each image: (B, tokens, width) -> (B, n, width).

    Args:
        by: one of `SELECTIONS`: those of the highest or lowest energy, which is the mean square, or the first.
        same_places: select by the mean energy over all images.
    """
    if by == "first":
        return tokens[:, :n]
    energy = tokens.float().square().mean(dim=-1)
    energy = energy.mean(dim=0, keepdim=True) if same_places else energy
    return gather_tokens(tokens, energy.topk(n, dim=-1, largest=by == "highest").indices)


def replace_before(
    layers: Sequence[int], name: str, compute: Callable[[int, dict[str, Segment]], Tensor]
) -> Callable[[int, dict[str, Segment]], None]:
    """Return the `before_layer` of a tower that replaces the tokens of segment `name` before some layers.

    Args:
        compute: (index of the layer in `layers`, all segments) -> new tokens.
    """

    def before_layer(depth: int, segments: dict[str, Segment]) -> None:
        if depth in layers:
            segments[name].tokens = compute(layers.index(depth), segments).to(segments[name].tokens.dtype)

    return before_layer
