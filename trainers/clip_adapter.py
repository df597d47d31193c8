"""CLIP-Adapter: Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, arXiv 2110.04544.

A bottleneck on the image feature f, mixed with it (section 3.2):

    A_v(f) = ReLU(ReLU(f W_1) W_2)                     (eq. 4)
    f*     = alpha A_v(f) + (1 - alpha) f              (eq. 6)

Class texts are fixed. The released code has no adapter on the text side, and neither has this file. f is CLIP's
projected feature, not normalized; f* is.

Attention pattern: as zero-shot CLIP on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, BackboneConfig
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.prompted import FixedTextCLIP, PromptedCLIP


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.CLIPADAPTER."""
    cfg.TRAINER.CLIPADAPTER = CfgNode()
    cfg.TRAINER.CLIPADAPTER.RATIO = 0.2  # alpha, the share of the adapted feature
    cfg.TRAINER.CLIPADAPTER.REDUCTION = 4  # width of the feature / width of the bottleneck
    cfg.TRAINER.CLIPADAPTER.PREC = "fp32"  # fp32, fp16, bf16 or amp


class FeatureAdapter(nn.Module):
    """The bottleneck: `fc.0.weight` (W_1, transposed) and `fc.2.weight` (W_2), named as in the released code."""

    def __init__(self, width: int, reduction: int):
        super().__init__()
        down, up = nn.Linear(width, width // reduction, bias=False), nn.Linear(width // reduction, width, bias=False)
        self.fc = nn.Sequential(down, nn.ReLU(), up, nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(features)


class AdapterCLIP(FixedTextCLIP):
    """CLIP with an adapter on the image feature."""

    frozen_image_encoder = True

    def __init__(self, clip_model: CLIP, texts: Sequence[str | Sequence[str]], options: CfgNode):
        super().__init__(clip_model, texts)
        self.prompt_learner = FeatureAdapter(clip_model.text_projection.shape[1], options.REDUCTION)
        self.ratio = options.RATIO

    def image_features(self, images: Tensor) -> Tensor:
        f = self.tower_features(images)
        return F.normalize(self.ratio * self.prompt_learner(f) + (1 - self.ratio) * f, dim=-1)


@TRAINER_REGISTRY.register()
class CLIPAdapter(PromptTrainer):
    """Feature adapter: cross-entropy over fixed class texts; only the adapter is trained."""

    config_node = "CLIPADAPTER"
    static_step = True
    checkpoint_name = "clip_adapter"
    unit_length_features = False

    def check_options(self, checks: Checks) -> None:
        checks.holds("RATIO", 0 < self.options.RATIO <= 1, "above 0 and at most 1")
        checks.at_least("REDUCTION", 1)

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        checks.at_most("REDUCTION", sizes.embed_dim, "the width of the backbone's features")

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return AdapterCLIP(clip_model, self.fixed_texts(classnames), self.options)
