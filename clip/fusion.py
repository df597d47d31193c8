"""The Token Fusion Module of Yao et al., Self-Enhanced Prompt tuning, arXiv 2405.15549."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from .attention import Attention
from .towers import QuickGELU

HEAD_WIDTH, MLP_WIDTH = 64, 256  # of the released code


class TokenFusion(nn.Module):
    """Fuses prompts with as many tokens of the pretrained model into the next prompts. Parameters have released names.

    F = s1 T + (1 - s1) MHA(query LN(P), key = value LN(T)),  P' = s2 F + (1 - s2) MLP(LN(F)); s1, s2 start at 0.75.
    """

    def __init__(self, width: int):
        super().__init__()
        self.promt_attention_visual = Attention(width, max(width // HEAD_WIDTH, 1))
        nn.init.xavier_uniform_(self.promt_attention_visual.in_proj_weight)
        nn.init.zeros_(self.promt_attention_visual.out_proj.bias)
        self.ln_pa_1_visual, self.ln_pa_2_visual = nn.LayerNorm(width), nn.LayerNorm(width)
        down, up = nn.Linear(width, MLP_WIDTH, bias=False), nn.Linear(MLP_WIDTH, width, bias=False)
        self.mlp_pa_visual = nn.Sequential(OrderedDict(c_fc1=down, gelu1=QuickGELU(), c_proj=up))
        self.scale1, self.scale2 = nn.Parameter(torch.full((1,), 0.75)), nn.Parameter(torch.full((1,), 0.75))

    def forward(self, tokens: Tensor, prompts: Tensor, across: bool) -> Tensor:
        """Tokens (N, n, width) and prompts (N or 1, n, width) -> prompts (N, n, width), float32.

        Args:
            across: attend across the N rows, slot by slot (as the released code does), not across the n slots of a row.
        """
        tokens, prompts = tokens.float(), prompts.float().expand(len(tokens), -1, -1)
        x, to = self.ln_pa_1_visual(prompts), self.ln_pa_1_visual(tokens)
        if across:
            x, to = x.transpose(0, 1), to.transpose(0, 1)
        attended = self.promt_attention_visual.cross_attend(x, to)
        fused = self.scale1 * tokens + (1 - self.scale1) * (attended.transpose(0, 1) if across else attended)
        return self.scale2 * fused + (1 - self.scale2) * self.mlp_pa_visual(self.ln_pa_2_visual(fused))
