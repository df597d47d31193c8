"""Ragged rows: class texts of different lengths, packed into one segment without padding.

The rows of one length form a group, and the groups follow one another along the token axis (`Packing`). Everything that
treats tokens one by one (norms, projections, the MLP) runs over all of them at once. Attention runs group by group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .attention import Attention, KeysValues, LinearUpdate, Packing, Segment
from .kv_cache import KVCache, Layer, concatenate, join
from .patterns import Pattern


class RaggedPattern:
    """How a segment with ragged rows attends (see `Pattern`).

    It may attend to itself, each row to its own tokens, and to segments with a batch of one row or of N rows.
    """

    def __init__(self, name: str, segments: dict[str, Segment], causal: bool):
        segment = segments[name]
        for other in segment.attends_to:
            if other not in segments or segments[other].lengths is not None:
                raise ValueError(f"segment {name!r} has ragged rows: it cannot attend to {other!r}")
        self.name, self.attends_to, self.packing = name, segment.attends_to, segment.packing
        self.masks = [self._mask(length, segments, causal) for _, length in self.packing]
        self.output_masks = [] if segment.output is None else self._output_masks(segment.output)

    def _mask(self, length: int, segments: dict[str, Segment], causal: bool) -> Tensor:
        """Return the mask of the rows of one length: bool (length, number of keys)."""
        blocks = []
        for name in self.attends_to:
            size = length if name == self.name else segments[name].tokens.shape[-2]
            block = torch.ones(length, size, dtype=torch.bool, device=segments[name].tokens.device)
            blocks.append(block.tril() if causal and name == self.name else block)
        return concatenate(blocks, dim=-1)

    def _output_masks(self, output: Tensor) -> list[Tensor]:
        """Return the masks of the tokens at `output`, group by group: bool (rows, 1, number of keys)."""
        masks, token, row = [], 0, 0
        for (rows, length), mask in zip(self.packing, self.masks, strict=True):
            starts = token + length * torch.arange(rows, device=mask.device)
            masks.append(mask[output[row : row + rows] - starts][:, None])
            token, row = token + rows * length, row + rows
        return masks

    def attend(
        self,
        attention: Attention,
        queries: Tensor,
        layer: Layer,
        output_only: bool,
        update: LinearUpdate | None = None,
    ) -> Tensor:
        """Attend as `Pattern.attend`: queries (*batch, heads, m, head width) of packed rows -> (*batch, m, width)."""
        own = unpack_keys_values(layer[self.name], self.packing) if self.name in self.attends_to else []
        masks = self.output_masks if output_only else self.masks
        packing = tuple((rows, 1) for rows, _ in self.packing) if output_only else self.packing
        outputs, first = [], 0
        for i, (group, (rows, _)) in enumerate(zip(unpack(queries, packing), packing, strict=True)):
            kv = join(own[i] if name == self.name else rows_of(layer[name], first, rows) for name in self.attends_to)
            x = attention.attend_heads(group.transpose(-3, -4), kv, masks[i], causal=False)
            outputs.append(x.flatten(-3, -2))
            first += rows
        return attention.project_output(torch.cat(outputs, dim=-2), update)


def pattern(name: str, segments: dict[str, Segment], cache: KVCache, causal: bool) -> Pattern | RaggedPattern:
    """Return how the segment `name` attends; arguments as in `Pattern`."""
    for other in segments[name].attends_to:
        if other != name and other in segments and segments[other].packing:
            raise ValueError(f"segment {other!r} has ragged rows: no other segment can attend to it")
    if segments[name].packing:
        return RaggedPattern(name, segments, causal)
    return Pattern(name, segments, cache, causal)


def unpack(x: Tensor, packing: Packing) -> list[Tensor]:
    """View packed rows x (*batch, n, width) group by group: each (*batch, rows, length, width)."""
    parts = x.split([rows * length for rows, length in packing], dim=-2)
    return [part.unflatten(-2, group) for part, group in zip(parts, packing, strict=True)]


def unpack_keys_values(kv: KeysValues, packing: Packing) -> list[KeysValues]:
    """View keys and values of packed rows group by group: each (*batch, rows, heads, length, head width)."""
    keys, values = ([part.transpose(-3, -4) for part in unpack(x, packing)] for x in kv)
    return [KeysValues(*pair) for pair in zip(keys, values, strict=True)]


def rows_of(kv: KeysValues, first: int, rows: int) -> KeysValues:
    """Return keys and values that `rows` rows from `first` attend to: all of them if the batch is one shared row."""
    if kv.keys.shape[-4] == 1:
        return kv
    return KeysValues(kv.keys.narrow(-4, first, rows), kv.values.narrow(-4, first, rows))


def leading_tokens(segment: Segment, n: int) -> Tensor:
    """Gather the first n tokens of each packed row, (N, n, width)."""
    return torch.cat([rows[:, :n] for rows in unpack(segment.tokens, segment.packing)])
