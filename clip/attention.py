"""Segments and who reads whom: the only place that attends.

A *segment* is a set of tokens that travel through the layers together. In each layer a segment **writes** keys and
values (if anybody reads it) and **reads** the keys and values of the segments it names. Nothing else couples tokens,
so two facts hold by construction:

- a segment that reads nothing learnable is frozen: what it writes can be kept in a `Memory` and read again later;
- a segment that nobody reads changes nobody: RPO's read-only prompts (arXiv 2308.14960, section 3.1) need no mask.

Segments may have different batch shapes; they broadcast when one reads another. A context that all classes share has
batch shape (1,), the class words (C,): the context runs once, not C times. Rows of several lengths stand one behind
the other, in groups of one length (`Segment.groups`): what counts token by token runs for all at once, attention group
by group, and no row is padded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Groups = tuple[tuple[int, int], ...]  # (rows, length of each)


@dataclass
class Segment:
    """Tokens that travel together.

    Attributes:
        tokens: (*batch, n, width).
        reads: names of the segments read, in order of position; itself included if it reads itself.
        deep: what replaces the tokens before layer 1, 2, ... (deep prompts), each of a shape that `tokens` may have.
        lengths: (*batch,) int, the number of tokens of each row that are not padding; nobody reads beyond. None: all.
        output: (*batch, m) int, positions whose tokens are wanted after the last layer; None: all of them.
        wanted: False for a segment that is only read: its last layer then ends at its keys and values.
        groups: (rows, length of each) of rows of several lengths, N in all, that stand one behind the other in the n
            tokens. What such a segment reads has N rows, or one for all. It is read by itself alone; `output` are the
            N positions, counted in the n tokens, of one token of each row. Empty: one row of n tokens.
    """

    tokens: Tensor
    reads: tuple[str, ...]
    deep: Sequence[Tensor] = ()
    lengths: Tensor | None = None
    output: Tensor | None = None
    wanted: bool = True
    groups: Groups = ()

    def rows(self) -> list[Tensor]:
        """The tokens of each group, (*batch, rows, length, width)."""
        return cut(self.tokens, self.groups)


class KeysValues(NamedTuple):
    """What a segment writes in one layer: two tensors of shape (*batch, heads, n, head_width)."""

    keys: Tensor
    values: Tensor


@dataclass
class Memory:
    """What frozen segments wrote, layer by layer, for others to read later.

    Attributes:
        layers: for each layer, the segment's name -> what it wrote.
        sizes: the segment's name -> (number of tokens, lengths as in `Segment`).
    """

    layers: list[dict[str, KeysValues]] = field(default_factory=list)
    sizes: dict[str, tuple[int, Tensor | None]] = field(default_factory=dict)

    def rows(self, rows: slice) -> Memory:
        """What some rows of a batch wrote, (N, n) tokens in all, as views."""
        layers = [{name: KeysValues(*(x[rows] for x in w)) for name, w in layer.items()} for layer in self.layers]
        return Memory(layers, {name: (n, None if m is None else m[rows]) for name, (n, m) in self.sizes.items()})


class Attention(nn.Module):
    """Multi-head attention under OpenAI's parameter names, cut into writing and reading.

    Args:
        width: token width, a multiple of `heads`.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # rows: queries, keys, values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def project(self, x: Tensor, asks: bool, writes: bool) -> tuple[Tensor | None, KeysValues | None]:
        """Queries, and keys with values, of tokens x (*batch, n, width): only those that somebody needs."""
        width = x.shape[-1]
        rows = slice(0 if asks else width, 3 * width if writes else width)
        parts = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows]).split(width, dim=-1)
        parts = [p.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for p in parts]
        return (parts[0] if asks else None), (KeysValues(*parts[-2:]) if writes else None)

    def find(self, queries: Tensor, written: KeysValues, mask: Tensor | None, causal: bool) -> Tensor:
        """What the queries find in what was written, before `out_proj`.

        Args:
            queries: (*batch, heads, m, head_width).
            written: with a batch shape that broadcasts with the queries'.
            mask: bool, broadcastable to (*batch, m, number of keys), True where reading is allowed; or None.
            causal: queries and keys are the same tokens and each reads those up to itself (then no mask is needed).

        Returns:
            (*batch, m, width), batch shapes broadcast.
        """
        batch = torch.broadcast_shapes(queries.shape[:-3], written.keys.shape[:-3])

        def flat(x: Tensor) -> Tensor:  # one batch axis: what the fused kernels take
            return x.expand(*batch, *x.shape[-3:]).flatten(0, -4)

        if mask is not None:
            mask = mask.unsqueeze(-3)  # all heads alike
            mask = flat(mask) if mask.dim() > 3 else mask
        found = F.scaled_dot_product_attention(
            flat(queries), flat(written.keys), flat(written.values), mask, is_causal=causal
        )
        found = found.transpose(1, 2).flatten(2)
        return found.reshape(*batch, *found.shape[1:])

    def read(self, queries: Tensor, written: KeysValues, mask: Tensor | None, causal: bool) -> Tensor:
        """What goes back into the tokens: `find`, projected."""
        return self.out_proj(self.find(queries, written, mask, causal))

    def read_rows(
        self, queries: Tensor, asking: Groups, written: Sequence[KeysValues | list[KeysValues]], masks: list[Tensor]
    ) -> Tensor:
        """As `read`, for rows of several lengths: attention group by group, the projection for all at once.

        Args:
            queries: (*batch, heads, m, head_width), of all rows one behind the other.
            asking: the groups that the m queries form.
            written: what is read, in order of position: with a batch shape that ends in all rows or 1; the rows' own
                as a list, group by group.
            masks: for each group, as in `find`.

        Returns:
            (*batch, m, width).
        """
        found, first = [], 0
        for i, (asked, (rows, _)) in enumerate(zip(cut(queries, asking), asking, strict=True)):
            read = [w[i] if isinstance(w, list) else rows_of(w, first, rows) for w in written]
            found.append(self.find(asked.transpose(-3, -4), join(read), masks[i], causal=False).flatten(-3, -2))
            first += rows
        return self.out_proj(torch.cat(found, dim=-2))

    def between(self, asking: Tensor, read: Tensor) -> Tensor:
        """Cross-attention: what tokens (*batch, m, width) find in other tokens (*batch, n, width)."""
        queries, _ = self.project(asking, asks=True, writes=False)
        _, written = self.project(read, asks=False, writes=True)
        return self.read(queries, written, mask=None, causal=False)


def join(written: Sequence[KeysValues]) -> KeysValues:
    """What several segments wrote, one behind the other; batch shapes broadcast."""
    if len(written) == 1:
        return written[0]
    batch = torch.broadcast_shapes(*(w.keys.shape[:-3] for w in written))

    def behind(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat([x.expand(*batch, *x.shape[-3:]) for x in parts], dim=-2)

    return KeysValues(behind(w.keys for w in written), behind(w.values for w in written))


def cut(x: Tensor, groups: Groups) -> list[Tensor]:
    """Rows of several lengths that stand one behind the other, x (*batch, n, width): those of each group as views
    (*batch, rows, length, width)."""
    parts = x.split([rows * length for rows, length in groups], dim=-2)
    return [part.unflatten(-2, group) for part, group in zip(parts, groups, strict=True)]


def written_rows(written: KeysValues, groups: Groups) -> list[KeysValues]:
    """What rows of several lengths wrote, group by group: keys and values (*batch, rows, heads, length, head_width)."""
    keys, values = ([part.transpose(-3, -4) for part in cut(x, groups)] for x in written)
    return [KeysValues(*pair) for pair in zip(keys, values, strict=True)]


def rows_of(written: KeysValues, first: int, rows: int) -> KeysValues:
    """What `rows` rows from the first on read of it: their own part, or what one wrote for all."""
    if written.keys.shape[-4] == 1:
        return written
    return KeysValues(written.keys.narrow(-4, first, rows), written.values.narrow(-4, first, rows))


def take(x: Tensor, positions: Tensor) -> Tensor:
    """Rows of x (*batch, n, width) at positions (*batch, m): (*batch, m, width), batch shapes broadcast."""
    batch = torch.broadcast_shapes(x.shape[:-2], positions.shape[:-1])
    x = x.expand(*batch, *x.shape[-2:])
    index = positions.expand(*batch, positions.shape[-1])[..., None].expand(*batch, positions.shape[-1], x.shape[-1])
    return x.gather(-2, index)
