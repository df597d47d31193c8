"""Segments, and which segments each of them attends to: the only place where tokens interact.

A *segment* is a set of tokens that travel through the layers together. In each layer, every segment provides keys and
values, and then attends to the segments it names, which may include itself. Two facts follow:

- A segment that attends to nothing learnable is frozen. Its keys and values can be computed once (prefill), kept in a
  `KVCache`, and attended to later.
- A segment that no other segment attends to changes nothing else. RPO's read-only prompts (arXiv 2308.14960,
  section 3.1) need no mask.

Batch shapes broadcast when one segment attends to another. A context shared by all classes has the batch shape (1,)
and the class words have (C,), so the context runs once, not C times.

Read on in `clip.kv_cache`, `clip.patterns` (masks), `clip.ragged` (texts without padding), and `clip.towers`, which
runs the layers. Each of these files imports only those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


def add(x: Tensor, update: Tensor | None) -> Tensor:
    """Add an update, if there is one."""
    return x if update is None else x + update
