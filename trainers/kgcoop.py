"""KgCoOp: Yao et al., Visual-Language Prompt Tuning with Knowledge-guided Context Optimization, arXiv 2303.13283.

CoOp, whose class features w_i are pulled toward those of hand-written texts, w_i^clip (section 3.2):

    L    = L_ce + lambda L_kg                          (eq. 4)
    L_kg = 1/C sum_i || w_i - w_i^clip ||^2            (eq. 3)

As in the released code, L_kg is 1 - mean_i cos(w_i, w_i^clip), half of that for unit-length features.

Attention pattern: as CoOp.
"""

from __future__ import annotations

from torch import Tensor
from yacs.config import CfgNode

from clip import CLIP
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.context import GuidedContextCLIP, GuidedContextTrainer
from trainers.prompted import PromptedCLIP, distance


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.KGCOOP."""
    cfg.TRAINER.KGCOOP = CfgNode()
    cfg.TRAINER.KGCOOP.W = 8.0  # lambda, the weight of the pull toward the hand-written texts
    cfg.TRAINER.KGCOOP.N_CTX = 4  # M, the number of context vectors
    cfg.TRAINER.KGCOOP.CSC = False  # class-specific context: M vectors for each class
    cfg.TRAINER.KGCOOP.CTX_INIT = "a photo of a"  # words to start from; they replace N_CTX and CSC
    cfg.TRAINER.KGCOOP.CLASS_TOKEN_POSITION = "end"  # end, middle or front
    cfg.TRAINER.KGCOOP.PREC = "fp32"  # fp32, fp16, bf16 or amp


@TRAINER_REGISTRY.register()
class KgCoOp(GuidedContextTrainer):
    """Knowledge-guided context optimization: cross-entropy and the pull; only the context is trained."""

    config_node = "KGCOOP"
    static_step = True

    def check_options(self, checks: Checks) -> None:
        super().check_options(checks)
        checks.at_least("W", 0)

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        model = GuidedContextCLIP(clip_model, classnames, self.fixed_texts(classnames), self.options)
        model.prompt_learner.ignored_keys = ("bias_vectors", "meta_net")  # unused, in released checkpoints
        return model

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        text = self.model.text_features()
        logits = self.model.logits(self.model.image_features(images), text)
        ce, kg = self.cross_entropy(logits, labels), self.options.W * distance(text, self.model.frozen)
        self.loss_parts = {"ce": ce.detach(), "kg": kg.detach()}
        return ce + kg, logits
