"""How a segment attends in a forward pass: to which segments, through which mask."""

from __future__ import annotations

import torch
from torch import Tensor

from .attention import Attention, LinearUpdate, Segment
from .kv_cache import KVCache, Layer, concatenate


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


def gather_tokens(x: Tensor, positions: Tensor) -> Tensor:
    """Gather tokens of x (*batch, n, width) at positions (*batch, m): (*batch, m, width), batch shapes broadcast."""
    batch = torch.broadcast_shapes(x.shape[:-2], positions.shape[:-1])
    index = positions.expand(*batch, -1)[..., None].expand(*batch, -1, x.shape[-1])
    return x.expand(*batch, *x.shape[-2:]).gather(-2, index)
