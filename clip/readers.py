"""How a segment reads, layer by layer: whom, and which of their tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from .attention import Attention, KeysValues, Memory, Segment, join, take, written_rows


class Reader:
    """A segment whose rows are all of one length.

    Args:
        name: of the segment.
        segments: all that walk.
        memory: what earlier ones wrote.
        causal: if it reads itself, each token reads those up to itself.
    """

    def __init__(self, name: str, segments: dict[str, Segment], memory: Memory, causal: bool):
        self.segment, self.mask = segments[name], readable(name, segments, memory, causal)
        self.causal = causal and self.segment.reads == (name,)

    def read(
        self,
        attention: Attention,
        queries: Tensor,
        written: dict[str, KeysValues],
        joined: dict[tuple[str, ...], KeysValues],
        output: bool,
    ) -> Tensor:
        """What the queries (*batch, heads, m, head_width) find: (*batch, m, width).

        Args:
            written: by each segment in this layer.
            joined: what readers of the same segments put together before.
            output: the queries are those of the tokens at `output`, not all.
        """
        reads, mask, causal = self.segment.reads, self.mask, self.causal
        if reads not in joined:
            joined[reads] = join([written[r] for r in reads])
        if output:
            mask, causal = (None if mask is None else take(mask, self.segment.output)), False
        return attention.read(queries, joined[reads], None if causal else mask, causal)


class RowsReader:
    """A segment with rows of several lengths (`Segment.groups`). Arguments as of `Reader`."""

    def __init__(self, name: str, segments: dict[str, Segment], memory: Memory, causal: bool):
        segment = segments[name]
        for other in segment.reads:
            read = segments.get(other)
            if read is None or read.lengths is not None or (read.groups and other != name):
                raise ValueError(f"segment {name!r} has rows of several lengths: it cannot read {other!r}")
        self.name, self.segment = name, segment
        self.masks = [self._mask(length, segments, causal) for _, length in segment.groups]

    def _mask(self, length: int, segments: dict[str, Segment], causal: bool) -> Tensor:
        """The rows of one length: bool (length, number of keys)."""
        blocks = []
        for name in self.segment.reads:
            size = length if name == self.name else segments[name].tokens.shape[-2]
            block = torch.ones(length, size, dtype=torch.bool, device=self.segment.tokens.device)
            blocks.append(block.tril() if causal and name == self.name else block)
        return torch.cat(blocks, dim=-1)

    def _output_masks(self) -> list[Tensor]:
        """Of the masks what holds for the tokens at `output`: for each group, bool (rows, 1, number of keys)."""
        chosen, token, row = [], 0, 0
        for (rows, length), mask in zip(self.segment.groups, self.masks, strict=True):
            starts = token + length * torch.arange(rows, device=mask.device)
            chosen.append(mask[self.segment.output[row : row + rows] - starts][:, None])
            token, row = token + rows * length, row + rows
        return chosen

    def read(
        self,
        attention: Attention,
        queries: Tensor,
        written: dict[str, KeysValues],
        joined: dict[tuple[str, ...], KeysValues],
        output: bool,
    ) -> Tensor:
        """As `Reader.read`; `joined` is not used, because nobody else reads this segment."""
        groups, masks = self.segment.groups, self.masks
        parts = [written_rows(written[r], groups) if r == self.name else written[r] for r in self.segment.reads]
        if output:
            groups, masks = tuple((rows, 1) for rows, _ in groups), self._output_masks()
        return attention.read_rows(queries, groups, parts, masks)


def reader(name: str, segments: dict[str, Segment], memory: Memory, causal: bool) -> Reader | RowsReader:
    """The reader of a segment. Arguments as of `Reader`."""
    return (RowsReader if segments[name].groups else Reader)(name, segments, memory, causal)


def readable(name: str, segments: dict[str, Segment], memory: Memory, causal: bool) -> Tensor | None:
    """The mask of one reader over all that it reads, or None if it may read everything.

    Returns:
        bool, broadcastable to (*batch, n, total number of keys).
    """
    segment = segments[name]
    n = segment.tokens.shape[-2]
    device = segment.tokens.device
    blocks, needed = [], False
    for other in segment.reads:
        if other in segments:
            if segments[other].groups:
                raise ValueError(f"segment {other!r} has rows of several lengths: {name!r} cannot read it")
            size, lengths = segments[other].tokens.shape[-2], segments[other].lengths
        else:
            size, lengths = memory.sizes[other]
        block = torch.ones(n, size, dtype=torch.bool, device=device)
        if causal and other == name:
            block, needed = block.tril(), True  # a padded token stands behind every token that counts
        elif lengths is not None:
            block, needed = block & (torch.arange(size, device=device) < lengths[..., None, None]), True
        blocks.append(block)
    if not needed:
        return None
    batch = torch.broadcast_shapes(*(b.shape[:-2] for b in blocks))
    return torch.cat([b.expand(*batch, *b.shape[-2:]) for b in blocks], dim=-1)
