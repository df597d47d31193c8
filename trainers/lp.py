"""LP: the linear probe of Lee et al., Read-only Prompt Optimization, arXiv 2308.14960 (section 4, "linear probe").

A linear map of the image feature, compared with fixed class texts. It starts as the identity, which is zero-shot CLIP:

    p(y = i | x) = softmax_i( cos(W f(x) + b, g(t_i)) / tau ),  W (D, D), b (D,)

The released code does not normalize: it maps and compares the features as they are. Here both are cosines, as in CLIP.

Attention pattern: as zero-shot CLIP on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.prompted import FixedTextCLIP, PromptedCLIP


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.LP."""
    cfg.TRAINER.LP = CfgNode()
    cfg.TRAINER.LP.PROMPT = ""  # the text of a class, with {} or {cls_name} for its name; "": as DATASET.PROMPT
    cfg.TRAINER.LP.PREC = "fp32"  # fp32, fp16, bf16 or amp


class LPCLIP(FixedTextCLIP):
    """CLIP with a linear map of the image feature: `weight` (D, D) and `bias` (D,)."""

    frozen_image_encoder = True

    def __init__(self, clip_model: CLIP, texts: Sequence[str | Sequence[str]]):
        super().__init__(clip_model, texts)
        width = clip_model.text_projection.shape[1]
        self.prompt_learner = nn.Linear(width, width)
        with torch.no_grad():
            self.prompt_learner.weight.copy_(torch.eye(width))
            self.prompt_learner.bias.zero_()

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.prompt_learner(super().image_features(images)), dim=-1)


@TRAINER_REGISTRY.register()
class LP(PromptTrainer):
    """Linear probe: cross-entropy over fixed class texts; only the linear map is trained."""

    config_node = "LP"
    static_step = True
    checkpoint_name = "lp_layer"

    def check_options(self, checks: Checks) -> None:
        text = self.options.PROMPT
        checks.expect(not text or "{}" in self.template(), "TRAINER.LP.PROMPT", "{} or {cls_name} in it", repr(text))

    def template(self) -> str:
        return self.options.PROMPT.replace("{cls_name}", "{}") or super().template()

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return LPCLIP(clip_model, self.fixed_texts(classnames))
