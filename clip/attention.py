"""Segments and the segments they attend to: the only place where tokens interact.

A *segment* is a set of tokens that travel through the layers together. In each layer, a segment provides keys and
values (if another segment attends to it) and attends to the segments it names. Nothing else couples tokens, so two
facts hold by construction:

- A segment that attends to nothing learnable is frozen. Its keys and values can be computed once (prefill), kept in a
  `KVCache`, and attended to later.
- A segment that no other segment attends to changes nothing else: RPO's read-only prompts (arXiv 2308.14960,
  section 3.1) need no mask.

Segments may have different batch shapes, which broadcast when one attends to another. A context shared by all classes
has batch shape (1,) and the class words have (C,): the context runs once, not C times. Rows of different lengths are
packed into one segment without padding (`clip.ragged`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear, linear

Packing = tuple[tuple[int, int], ...]  # (number of rows, their length), group by group


@dataclass
class Segment:
    """Tokens that travel together.

    Attributes:
        tokens: (*batch, n, width).
        attends_to: names of the segments it attends to, in order of position, including its own if it does so.
        deep: replacements of the tokens before layers 1, 2, ... (deep prompts), each of a shape `tokens` may have.
        lengths: (*batch,) int, the number of tokens of each row that are not padding; None if all count. No token
            attends to padding.
        output: (*batch, m) int, the positions whose tokens are needed after the last layer; None for all.
        wanted: False if the tokens are not needed after the last layer, only their keys and values in it.
        packing: for ragged rows, N in all, packed into the n tokens: see `clip.ragged`. `output` then holds N
            positions among the n tokens, one per row. Empty for a single row of n tokens.
    """

    tokens: Tensor
    attends_to: tuple[str, ...]
    deep: Sequence[Tensor] = ()
    lengths: Tensor | None = None
    output: Tensor | None = None
    wanted: bool = True
    packing: Packing = ()


class KeysValues(NamedTuple):
    """Keys and values of a segment in one layer, each (*batch, heads, n, head width)."""

    keys: Tensor
    values: Tensor


@dataclass
class KVCache:
    """Keys and values of frozen segments, layer by layer.

    Attributes:
        layers: for each layer, segment name -> keys and values.
        sizes: segment name -> (number of tokens, `Segment.lengths`).
    """

    layers: list[dict[str, KeysValues]] = field(default_factory=list)
    sizes: dict[str, tuple[int, Tensor | None]] = field(default_factory=dict)

    def batch_slice(self, rows: slice) -> KVCache:
        """The cache of some rows of a one-dimensional batch, as views."""
        layers = [{name: KeysValues(*(x[rows] for x in kv)) for name, kv in layer.items()} for layer in self.layers]
        return KVCache(layers, {name: (n, None if m is None else m[rows]) for name, (n, m) in self.sizes.items()})


class Attention(nn.Module):
    """Multi-head attention with OpenAI's parameter names.

    Args:
        width: token width, a multiple of `heads`.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # rows: queries, keys, values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)

    def project(self, x: Tensor, queries: bool, keys_values: bool) -> tuple[Tensor | None, KeysValues | None]:
        """Queries (*batch, heads, n, head width) and keys with values of tokens x (*batch, n, width), as requested."""
        width = x.shape[-1]
        rows = slice(0 if queries else width, 3 * width if keys_values else width)
        parts = linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows]).split(width, dim=-1)
        parts = [p.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for p in parts]
        return (parts[0] if queries else None), (KeysValues(*parts[-2:]) if keys_values else None)

    def heads_output(self, queries: Tensor, kv: KeysValues, mask: Tensor | None, causal: bool) -> Tensor:
        """Scaled dot-product attention, heads concatenated, before `out_proj`; arguments as in `attend`."""
        batch = torch.broadcast_shapes(queries.shape[:-3], kv.keys.shape[:-3])

        def flat(x: Tensor) -> Tensor:  # the fused kernels take a single batch axis
            return x.expand(*batch, *x.shape[-3:]).flatten(0, -4)

        if mask is not None:
            mask = mask.unsqueeze(-3)  # the same for all heads
            mask = flat(mask) if mask.dim() > 3 else mask
        x = F.scaled_dot_product_attention(flat(queries), flat(kv.keys), flat(kv.values), mask, is_causal=causal)
        x = x.transpose(1, 2).flatten(2)
        return x.reshape(*batch, *x.shape[1:])

    def attend(self, queries: Tensor, kv: KeysValues, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """The update of the tokens that the queries belong to.

        Args:
            queries: (*batch, heads, m, head width).
            kv: with a batch shape that broadcasts with the queries'.
            mask: bool, broadcastable to (*batch, m, number of keys), True where attention is allowed; or None.
            causal: queries and keys are the same tokens, and each attends to those up to itself; needs no mask.

        Returns:
            (*batch, m, width), batch shapes broadcast.
        """
        return self.out_proj(self.heads_output(queries, kv, mask, causal))

    def cross_attend(self, x: Tensor, to: Tensor) -> Tensor:
        """Tokens x (*batch, m, width) attend to other tokens (*batch, n, width): (*batch, m, width)."""
        queries, _ = self.project(x, queries=True, keys_values=False)
        _, kv = self.project(to, queries=False, keys_values=True)
        return self.attend(queries, kv)


class Pattern:
    """How one segment attends: to which segments, through which mask. Computed once per forward pass.

    Args:
        name: of the segment.
        segments: all segments of the pass.
        cache: the frozen segments of earlier passes.
        causal: a token that attends to its own segment attends to the tokens up to itself.
    """

    def __init__(self, name: str, segments: dict[str, Segment], cache: KVCache, causal: bool):
        self.segment = segments[name]
        self.causal = causal and self.segment.attends_to == (name,)  # then the kernel needs no mask
        self.mask = None if self.causal and self.segment.output is None else mask_of(name, segments, cache, causal)

    def attend(self, attention: Attention, queries: Tensor, layer: Layer, output_only: bool) -> Tensor:
        """The update of the segment's tokens (*batch, m, width).

        Args:
            queries: (*batch, heads, m, head width): of all tokens, or with `output_only` of those at `output`.
            layer: keys and values of this layer.
        """
        mask, causal = self.mask, self.causal
        if output_only:
            mask, causal = (None if mask is None else gather_tokens(mask, self.segment.output)), False
        return attention.attend(queries, layer.joined(self.segment.attends_to), None if causal else mask, causal)


class Layer:
    """Keys and values of the segments in one layer.

    Attributes:
        segments: name -> keys and values.
    """

    def __init__(self, segments: dict[str, KeysValues]):
        self.segments = segments
        self._joined: dict[tuple[str, ...], KeysValues] = {}

    def joined(self, names: tuple[str, ...]) -> KeysValues:
        """Those of several segments, concatenated once for all segments that attend to them."""
        if names not in self._joined:
            self._joined[names] = concatenate([self.segments[name] for name in names])
        return self._joined[names]


def mask_of(name: str, segments: dict[str, Segment], cache: KVCache, causal: bool) -> Tensor | None:
    """The mask of one segment over everything it attends to; None if it may attend to all of it.

    Returns:
        bool, broadcastable to (*batch, n, total number of keys).
    """
    segment = segments[name]
    n, device = segment.tokens.shape[-2], segment.tokens.device
    blocks, needed = [], False
    for other in segment.attends_to:
        size, lengths = cache.sizes[other] if other not in segments else _size(segments[other], other)
        block = torch.ones(n, size, dtype=torch.bool, device=device)
        if causal and other == name:
            block, needed = block.tril(), True  # padding comes after every token that counts
        elif lengths is not None:
            block, needed = block & (torch.arange(size, device=device) < lengths[..., None, None]), True
        blocks.append(block)
    if not needed:
        return None
    batch = torch.broadcast_shapes(*(b.shape[:-2] for b in blocks))
    return torch.cat([b.expand(*batch, *b.shape[-2:]) for b in blocks], dim=-1)


def _size(segment: Segment, name: str) -> tuple[int, Tensor | None]:
    if segment.packing:
        raise ValueError(f"segment {name!r} has ragged rows: no other segment can attend to it")
    return segment.tokens.shape[-2], segment.lengths


def concatenate(parts: Sequence[KeysValues]) -> KeysValues:
    """Keys and values of several segments in order of position; batch shapes broadcast."""
    if len(parts) == 1:
        return parts[0]
    batch = torch.broadcast_shapes(*(kv.keys.shape[:-3] for kv in parts))

    def cat(tensors: Iterable[Tensor]) -> Tensor:
        return torch.cat([x.expand(*batch, *x.shape[-3:]) for x in tensors], dim=-2)

    return KeysValues(cat(kv.keys for kv in parts), cat(kv.values for kv in parts))


def gather_tokens(x: Tensor, positions: Tensor) -> Tensor:
    """Tokens of x (*batch, n, width) at positions (*batch, m): (*batch, m, width), batch shapes broadcast."""
    batch = torch.broadcast_shapes(x.shape[:-2], positions.shape[:-1])
    x = x.expand(*batch, *x.shape[-2:])
    index = positions.expand(*batch, positions.shape[-1])[..., None].expand(*batch, positions.shape[-1], x.shape[-1])
    return x.gather(-2, index)
