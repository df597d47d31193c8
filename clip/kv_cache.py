"""Keys and values by segment: the cache of frozen segments, and those of all segments in one layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .attention import KeysValues


@dataclass
class KVCache:
    """Keys and values of frozen segments.

    Attributes:
        layers: for each layer, segment name -> keys and values.
        sizes: segment name -> (number of tokens, `Segment.lengths`).
    """

    layers: list[dict[str, KeysValues]] = field(default_factory=list)
    sizes: dict[str, tuple[int, Tensor | None]] = field(default_factory=dict)

    def batch_slice(self, rows: slice) -> KVCache:
        """Return the cache of some rows of a one-dimensional batch, as views."""
        layers = [{name: KeysValues(*(x[rows] for x in kv)) for name, kv in layer.items()} for layer in self.layers]
        return KVCache(layers, {name: (n, None if m is None else m[rows]) for name, (n, m) in self.sizes.items()})

    def stack(self, name: str) -> Tensor:
        """Stack a segment's keys and values of all layers: (B, layers, 2, heads, n, head width)."""
        return torch.stack([torch.stack(layer[name], dim=1) for layer in self.layers], dim=1)

    @classmethod
    def from_stack(cls, name: str, stack: Tensor) -> KVCache:
        """Return the cache of a segment without padding as views of its `stack`."""
        layers = [{name: KeysValues(*layer.unbind(dim=1))} for layer in stack.unbind(dim=1)]
        return cls(layers, {name: (stack.shape[-2], None)})


class Layer(dict[str, KeysValues]):
    """Keys and values of all segments in one layer, by name."""

    def __init__(self, segments: dict[str, KeysValues]):
        super().__init__(segments)
        self._joined: dict[tuple[str, ...], KeysValues] = {}

    def joined(self, names: tuple[str, ...]) -> KeysValues:
        """Join those of several segments, once for all segments that attend to the same ones."""
        if names not in self._joined:
            self._joined[names] = join([self[name] for name in names])
        return self._joined[names]


def join(parts: Iterable[KeysValues]) -> KeysValues:
    """Join keys and values of several segments in order of position; batch shapes broadcast."""
    return KeysValues(*(concatenate(tensors, dim=-2) for tensors in zip(*parts, strict=True)))


def concatenate(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenate tensors along one of the last two axes; the axes before those broadcast."""
    if len(parts) == 1:
        return parts[0]
    batch = torch.broadcast_shapes(*(x.shape[:-2] for x in parts))
    return torch.cat([x.expand(*batch, *x.shape[-2:]) for x in parts], dim=dim)
