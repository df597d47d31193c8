"""PromptSRC: Khattak et al., Self-regulating Prompts: Foundational Model Adaptation without Forgetting, 2307.06948.

IVLP's prompts, kept close to frozen CLIP by three terms (section 3.2); f and g are image and class features, p and q
the log-softmax of the learned and of frozen CLIP's logits:

    L = L_ce + w_i mean |f - f_0| + w_t mean |g - g_0| + KL      (eq. 3-5)
    KL = sum over images and classes of exp(q) (q - p), divided by B C

g_0 averages many templates (section 3.4). After the last epoch, the prompts are the average over all epochs, weighted
by a Gaussian (eq. 6). As in the released code, the mean absolute differences are over all B D or C D numbers, and g_0
is the mean of features that are not normalized, normalized after that.

Attention pattern: as MaPLe.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip import zero_shot_metadata
from torch import Tensor
from yacs.config import CfgNode

from clip import CLIP
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.averaging import EpochAverage, gaussian_weights
from trainers.independent import IndependentCLIP, IndependentTrainer
from trainers.prompted import PromptedCLIP

TEMPLATES = zero_shot_metadata.OPENAI_IMAGENET_TEMPLATES[:60]  # the released list


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.PROMPTSRC."""
    cfg.TRAINER.PROMPTSRC = CfgNode()
    cfg.TRAINER.PROMPTSRC.N_CTX_TEXT = 4  # context vectors per text layer
    cfg.TRAINER.PROMPTSRC.N_CTX_VISION = 4  # context vectors per image layer
    cfg.TRAINER.PROMPTSRC.CTX_INIT = "a photo of a"  # the first N_CTX_TEXT tokens are learned, the others stay fixed
    cfg.TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT = 9  # text layers with new context
    cfg.TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION = 9  # image layers with new context
    cfg.TRAINER.PROMPTSRC.TEXT_LOSS_WEIGHT = 25.0  # w_t
    cfg.TRAINER.PROMPTSRC.IMAGE_LOSS_WEIGHT = 10.0  # w_i
    cfg.TRAINER.PROMPTSRC.GPA_MEAN = 15.0  # the epoch with the largest weight in the average, counted from 1
    cfg.TRAINER.PROMPTSRC.GPA_STD = 1.0  # the standard deviation of the weights, in epochs
    cfg.TRAINER.PROMPTSRC.PREC = "fp32"  # fp32, fp16, bf16 or amp


@TRAINER_REGISTRY.register()
class PromptSRC(IndependentTrainer):
    """Self-regulating prompts: cross-entropy and three consistency terms; all context vectors are trained."""

    model: IndependentCLIP
    config_node = "PROMPTSRC"
    static_step = True
    needs_last_epoch = True  # it averages the epochs

    def check_options(self, checks: Checks) -> None:
        super().check_options(checks)
        checks.at_least(("PROMPT_DEPTH_TEXT", "PROMPT_DEPTH_VISION"), 1)
        checks.at_least(("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT"), 0)
        checks.above("GPA_STD", 0)

    def build_model(self) -> None:
        super().build_model()
        options = self.options
        self.average = EpochAverage(gaussian_weights(self.max_epoch, options.GPA_MEAN, options.GPA_STD))

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> IndependentCLIP:
        texts = self.fixed_texts(classnames)
        return IndependentCLIP(clip_model, classnames, texts, self.options, normalize_each=False)

    def fixed_texts(self, classnames: list[str]) -> list[list[str]]:
        """Return the texts of DATASET.CLASS_TEXTS, or else those of the released templates."""
        if self.given_texts() is not None:
            return super().fixed_texts(classnames)
        return [[template(name) for template in TEMPLATES] for name in classnames]

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        model, options = self.model, self.options
        image, text = model.image_features(images), model.text_features()
        logits = model.logits(image, text)
        with torch.no_grad():
            image_0 = PromptedCLIP.image_features(model, images)
            logits_0 = model.logits(image_0, model.features)
        p, q = logits.float().log_softmax(dim=1), logits_0.float().log_softmax(dim=1)
        parts = {
            "ce": self.cross_entropy(logits, labels),
            "text": options.TEXT_LOSS_WEIGHT * F.l1_loss(text, model.features),
            "image": options.IMAGE_LOSS_WEIGHT * F.l1_loss(image, image_0),
            "kl": F.kl_div(p, q, reduction="sum", log_target=True) / p.numel(),
        }
        self.loss_parts = {name: part.detach() for name, part in parts.items()}
        return sum(parts.values()), logits

    def after_epoch(self) -> None:
        self.average.add(self.model.prompt_learner, self.epoch)
        if self.epoch + 1 == self.max_epoch:
            self.average.copy_to(self.model.prompt_learner)
        super().after_epoch()

    def method_state(self) -> dict[str, Tensor]:
        return self.average.sums

    def load_method_state(self, state: dict[str, Tensor]) -> None:
        self.average.sums = state
