"""Segments, and which segments each of them attends to: the only place where tokens interact.

A *segment* is a set of tokens that travel through the layers together. In each layer, every segment provides keys and
values, and then attends to the segments it names, which may include itself. Two facts follow:

- A segment that attends to nothing learnable is frozen. Its keys and values can be computed once (prefill), kept in a
  `KVCache`, and attended to later.
- A segment that no other segment attends to changes nothing else. RPO's read-only prompts (arXiv 2308.14960,
  section 3.1) need no mask.

Batch shapes broadcast when one segment attends to another. A context shared by all classes has the batch shape (1,)
and the class words have (C,), so the context runs once, not C times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear, linear

Packing = tuple[tuple[int, int], ...]  # (number of rows, their length), group by group: see `clip.ragged`
LinearUpdate = Callable[[str, Tensor], Tensor | None]  # see `clip.towers.LayerAdapter.linear_update`


@dataclass
class Segment:
    """Tokens that travel together.

    Attributes:
        tokens: (*batch, n, width).
        attends_to: names of the segments it attends to, in order of position.
        deep: replacements of the tokens before the layers that follow the first one (deep prompts), each of a shape
            `tokens` may have.
        first_layer: the layer before which the tokens join the others; below it, no segment attends to them.
        lengths: (*batch,) int, the number of tokens per row that are not padding; None if all count. No token attends
            to padding.
        output: (*batch, m) int, the positions whose tokens are needed after the last layer; None for all.
        wanted: False if only keys and values are needed of the last layer, not the tokens after it.
        packing: of ragged rows, N in all, whose n tokens are packed without padding (`clip.ragged`). `output` then
            holds N positions among the n tokens, one per row. Empty for a single row of n tokens.
    """

    tokens: Tensor
    attends_to: tuple[str, ...]
    deep: Sequence[Tensor] = ()
    first_layer: int = 0
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

    def queries(self, x: Tensor, update: LinearUpdate | None = None) -> Tensor:
        """Compute the queries of tokens x (*batch, n, width): (*batch, heads, n, head width)."""
        return self._project(x, 0, 1, update)[0]

    def keys_values(self, x: Tensor, update: LinearUpdate | None = None) -> KeysValues:
        """Compute the keys and values of tokens x (*batch, n, width)."""
        return KeysValues(*self._project(x, 1, 3, update))

    def queries_keys_values(self, x: Tensor, update: LinearUpdate | None = None) -> tuple[Tensor, KeysValues]:
        """Compute queries, and keys with values, of tokens x (*batch, n, width), in one matrix product."""
        queries, keys, values = self._project(x, 0, 3, update)
        return queries, KeysValues(keys, values)

    def _project(self, x: Tensor, first: int, last: int, update: LinearUpdate | None) -> list[Tensor]:
        """Compute parts first to last - 1 of the queries, keys, and values."""
        width = x.shape[-1]
        rows = slice(first * width, last * width)
        parts = linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows]).split(width, dim=-1)
        if update is not None:
            parts = [add(p, update(name, x)) for p, name in zip(parts, "qkv"[first:last], strict=True)]
        return [p.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for p in parts]

    def project_output(self, x: Tensor, update: LinearUpdate | None = None) -> Tensor:
        """Map the heads' results x (*batch, m, width) by `out_proj`."""
        out = self.out_proj(x)
        return out if update is None else add(out, update("o", x))

    def attend_heads(self, queries: Tensor, kv: KeysValues, mask: Tensor | None, causal: bool) -> Tensor:
        """Compute scaled dot-product attention, heads concatenated, before `out_proj`; arguments as in `attend`."""
        batch = torch.broadcast_shapes(queries.shape[:-3], kv.keys.shape[:-3])

        def flat(x: Tensor) -> Tensor:  # the fused kernels take a single batch axis
            return x.expand(*batch, *x.shape[-3:]).flatten(0, -4)

        if mask is not None:
            mask = mask.unsqueeze(-3)  # the same for all heads
            mask = flat(mask) if mask.dim() > 3 else mask
        x = F.scaled_dot_product_attention(flat(queries), flat(kv.keys), flat(kv.values), mask, is_causal=causal)
        x = x.transpose(1, 2).flatten(2)
        return x.reshape(*batch, *x.shape[1:])

    def attend(
        self,
        queries: Tensor,
        kv: KeysValues,
        mask: Tensor | None = None,
        causal: bool = False,
        update: LinearUpdate | None = None,
    ) -> Tensor:
        """Return the update of the tokens that the queries belong to.

        Args:
            queries: (*batch, heads, m, head width).
            kv: with a batch shape that broadcasts with that of the queries.
            mask: bool, broadcastable to (*batch, m, number of keys), True where attention is allowed; None allows all.
            causal: each token attends to the tokens up to itself; queries and keys belong to the same tokens.
            update: of `out_proj`.

        Returns:
            (*batch, m, width), batch shapes broadcast.
        """
        return self.project_output(self.attend_heads(queries, kv, mask, causal), update)

    def cross_attend(self, x: Tensor, to: Tensor) -> Tensor:
        """Let tokens x (*batch, m, width) attend to other tokens (*batch, n, width): (*batch, m, width)."""
        return self.attend(self.queries(x), self.keys_values(to))


class Pattern:
    """How one segment attends: to which segments, through which mask. Created once per forward pass.

    Args:
        name: the segment's.
        segments: all segments of the pass.
        cache: frozen segments.
        causal: a token that attends to its own segment attends to the tokens up to itself.
    """

    def __init__(self, name: str, segments: dict[str, Segment], cache: KVCache, causal: bool):
        self.attends_to, output = segments[name].attends_to, segments[name].output
        self.causal = causal and self.attends_to == (name,)  # then the kernel needs no mask
        mask = attention_mask(name, segments, cache, causal) if output is not None or not self.causal else None
        self.mask = None if self.causal else mask
        self.output_mask = mask if mask is None or output is None else gather_tokens(mask, output)

    def attend(
        self,
        attention: Attention,
        queries: Tensor,
        layer: Layer,
        output_only: bool,
        update: LinearUpdate | None = None,
    ) -> Tensor:
        """Return the update of the segment's tokens (*batch, m, width).

        Args:
            queries: (*batch, heads, m, head width): of all tokens, or with `output_only` of those at `output`.
            layer: keys and values of this layer.
            update: of the attention's `out_proj`.
        """
        kv = layer.joined(self.attends_to)
        if output_only:
            return attention.attend(queries, kv, self.output_mask, update=update)
        return attention.attend(queries, kv, self.mask, self.causal, update)


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


def attention_mask(name: str, segments: dict[str, Segment], cache: KVCache, causal: bool) -> Tensor | None:
    """Return the mask of one segment over everything it attends to; None if it may attend to all of it.

    Returns:
        bool, broadcastable to (*batch, n, total number of keys).
    """
    sizes = cache.sizes | {key: (s.tokens.shape[-2], s.lengths) for key, s in segments.items()}
    tokens, blocks, needed = segments[name].tokens, [], False
    for other in segments[name].attends_to:
        size, lengths = sizes[other]
        block = torch.ones(tokens.shape[-2], size, dtype=torch.bool, device=tokens.device)
        if causal and other == name:
            block, needed = block.tril(), True  # padding comes after every token that counts
        elif lengths is not None:
            block, needed = block & (torch.arange(size, device=tokens.device) < lengths[..., None, None]), True
        blocks.append(block)
    return concatenate(blocks, dim=-1) if needed else None


def add(x: Tensor, update: Tensor | None) -> Tensor:
    """Add an update, if there is one."""
    return x if update is None else x + update


def join(parts: Iterable[KeysValues]) -> KeysValues:
    """Join keys and values of several segments in order of position; batch shapes broadcast."""
    return KeysValues(*(concatenate(tensors, dim=-2) for tensors in zip(*parts, strict=True)))


def concatenate(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenate tensors along one of the last two axes; the axes before those broadcast."""
    if len(parts) == 1:
        return parts[0]
    batch = torch.broadcast_shapes(*(x.shape[:-2] for x in parts))
    return torch.cat([x.expand(*batch, *x.shape[-2:]) for x in parts], dim=dim)


def gather_tokens(x: Tensor, positions: Tensor) -> Tensor:
    """Gather tokens of x (*batch, n, width) at positions (*batch, m): (*batch, m, width), batch shapes broadcast."""
    batch = torch.broadcast_shapes(x.shape[:-2], positions.shape[:-1])
    index = positions.expand(*batch, -1)[..., None].expand(*batch, -1, x.shape[-1])
    return x.expand(*batch, *x.shape[-2:]).gather(-2, index)
