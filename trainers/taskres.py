"""TaskRes: Yu et al., Task Residual for Tuning Vision-Language Models, arXiv 2211.10277.

A learned residual x for each class is added to frozen CLIP's text feature t (section 4.2):

    t' = t + alpha x                                   (eq. 4)

x starts at zero, which is zero-shot CLIP. As in the released code, t is the mean of the features of the class's texts,
not normalized; t' is. The residuals belong to their classes.

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
from trainers.prompted import PromptedCLIP, encode_texts


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.TASKRES."""
    cfg.TRAINER.TASKRES = CfgNode()
    cfg.TRAINER.TASKRES.ALPHA = 0.5  # alpha, the weight of the residual; released: 1 for Oxford Flowers
    cfg.TRAINER.TASKRES.PREC = "fp32"  # fp32, fp16, bf16 or amp


class Residuals(nn.Module):
    """x: `text_feature_residuals` (C, D)."""

    def __init__(self, n_classes: int, width: int):
        super().__init__()
        self.text_feature_residuals = nn.Parameter(torch.zeros(n_classes, width))
        self.ignored_keys = ("base_text_features",)  # t, in released checkpoints


class TaskResCLIP(PromptedCLIP):
    """CLIP with a residual on each class feature."""

    frozen_image_encoder = True
    per_class_parameters = True
    base: Tensor

    def __init__(self, clip_model: CLIP, texts: Sequence[str | Sequence[str]], options: CfgNode):
        super().__init__(clip_model, len(texts))
        base = torch.stack([own.mean(dim=0) for own in encode_texts(clip_model, texts)])
        self.register_buffer("base", base, persistent=False)
        self.prompt_learner, self.alpha = Residuals(*base.shape), options.ALPHA

    def class_features(self, classes: slice) -> Tensor:
        residuals = self.prompt_learner.text_feature_residuals[classes]
        return F.normalize(self.base[classes] + self.alpha * residuals, dim=-1)


@TRAINER_REGISTRY.register()
class TaskRes(PromptTrainer):
    """Task residual tuning: cross-entropy; only the residuals are trained."""

    config_node = "TASKRES"
    static_step = True

    def check_options(self, checks: Checks) -> None:
        checks.above("ALPHA", 0)

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return TaskResCLIP(clip_model, self.fixed_texts(classnames), self.options)
