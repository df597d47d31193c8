"""Low-rank updates of the linear maps of a frozen attention: Hu et al., LoRA, arXiv 2106.09685."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .towers import LayerAdapter

NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "proj"}  # as in CLIP-LoRA's released files


class LowRank(nn.Module):
    """The update x -> scale B A dropout(x) of a square map, of rank r. B starts at zero: the map starts unchanged."""

    def __init__(self, width: int, rank: int, scale: float, dropout: float):
        super().__init__()
        self.scale, self.dropout = scale, dropout
        self.w_lora_A = nn.Parameter(torch.empty(rank, width))
        self.w_lora_B = nn.Parameter(torch.zeros(width, rank))
        nn.init.kaiming_uniform_(self.w_lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        # The cheap order: W + scale B A would need the gradient of a full matrix.
        low = F.linear(F.dropout(x.to(self.w_lora_A), self.dropout, self.training), self.w_lora_A)
        return (self.scale * F.linear(low, self.w_lora_B)).to(x)


class LowRankUpdates(LayerAdapter):
    """Low-rank updates of some of a layer's maps of queries, keys, values, and outputs.

    Args:
        width: of the tower.
        maps: which maps, some of "q", "k", "v", "o".
        rank, scale, dropout: as in `LowRank`.
    """

    def __init__(self, width: int, maps: list[str], rank: int, scale: float, dropout: float):
        super().__init__()
        for name in maps:
            self.add_module(NAMES[name], LowRank(width, rank, scale, dropout))

    def linear_update(self, name: str, x: Tensor) -> Tensor | None:
        module = getattr(self, NAMES[name], None)
        return None if module is None else module(x)
