"""KgCoOp: Yao et al., Visual-Language Prompt Tuning with Knowledge-guided Context Optimization, arXiv 2303.13283.

CoOp, whose class features w_i are pulled toward those of hand-written texts, w_i^clip (section 3.2):

    L    = L_ce + lambda L_kg                          (eq. 4)
    L_kg = 1/C sum_i || w_i - w_i^clip ||^2            (eq. 3)

As in the released code, L_kg is 1 - mean_i cos(w_i, w_i^clip), half of that for unit-length features.

Attention pattern: as CoOp.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.coop import CoOp, CoOpCLIP
from trainers.prompted import PromptedCLIP, distance, frozen_text_features


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.KGCOOP."""
    cfg.TRAINER.KGCOOP = CfgNode()
    cfg.TRAINER.KGCOOP.W = 8.0  # lambda, the weight of the pull toward the hand-written texts
    cfg.TRAINER.KGCOOP.N_CTX = 4  # M, the number of context vectors
    cfg.TRAINER.KGCOOP.CSC = False  # class-specific context: M vectors for each class
    cfg.TRAINER.KGCOOP.CTX_INIT = "a photo of a"  # words to start from; they replace N_CTX and CSC
    cfg.TRAINER.KGCOOP.CLASS_TOKEN_POSITION = "end"  # end, middle or front
    cfg.TRAINER.KGCOOP.PREC = "fp32"  # fp32, fp16, bf16 or amp


class TextGuidedCLIP(CoOpCLIP):
    """CLIP with a learned context, and frozen CLIP's features of hand-written texts, `frozen` (C, D), to compare."""

    frozen: Tensor

    def __init__(
        self,
        clip_model: CLIP,
        classnames: list[str],
        texts: Sequence[str | Sequence[str]],
        options: CfgNode,
        ctx: nn.Parameter | None = None,
    ):
        super().__init__(clip_model, classnames, options, ctx)
        self.register_buffer("frozen", frozen_text_features(clip_model, texts), persistent=False)


class TextGuided(CoOp):
    """What KgCoOp and ProGrad share: CoOp next to zero-shot CLIP."""

    model: TextGuidedCLIP
    has_fixed_texts = True

    def texts(self, classnames: list[str]) -> Iterator[tuple[str, str, int]]:
        yield from PromptTrainer.texts(self, classnames)
        yield from super().texts(classnames)


@TRAINER_REGISTRY.register()
class KgCoOp(TextGuided):
    """Knowledge-guided context optimization: cross-entropy and the pull; only the context is trained."""

    config_node = "KGCOOP"

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return TextGuidedCLIP(clip_model, classnames, self.fixed_texts(classnames), self.options)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        text = self.model.text_features()
        logits = self.model.logits(self.model.image_features(images), text)
        ce, kg = F.cross_entropy(logits.float(), labels), self.options.W * distance(text, self.model.frozen)
        self.loss_parts = {"ce": ce.detach(), "kg": kg.detach()}
        return ce + kg, logits
