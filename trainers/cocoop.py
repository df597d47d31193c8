"""CoCoOp: Zhou et al., Conditional Prompt Learning for Vision-Language Models, arXiv 2203.05557.

A meta-net maps the image feature to one vector that is added to every context vector (section 3.2):

    v_m(x) = v_m + h_theta(x)                                  h_theta: D -> D/16 -> text width, ReLU between
    t_i(x) = v_1(x) ... v_M(x) [CLASS]
    p(y = i | x) = softmax_i(<f(x), g(t_i(x))> / tau)          (eq. 3)

Attention pattern: as CoOp, with one context per image. [SOS, context] of an image attends to itself, once for all
classes; for every image, the words of a class attend to it and to themselves. The image side is zero-shot CLIP.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, TEXTS_AT_ONCE, ClassWords, context_vectors
from dassl.engine import TRAINER_REGISTRY
from trainers.context import ContextTrainer, encode_around_context
from trainers.prompted import PromptedCLIP

REDUCTION = 16  # of the meta-net's hidden layer (section 3.2)


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.COCOOP."""
    cfg.TRAINER.COCOOP = CfgNode()
    cfg.TRAINER.COCOOP.N_CTX = 16  # M, the number of context vectors
    cfg.TRAINER.COCOOP.CTX_INIT = ""  # words to start from, "a photo of a"; their number replaces N_CTX
    cfg.TRAINER.COCOOP.PREC = "fp32"  # fp32, fp16, bf16 or amp


class PromptLearner(nn.Module):
    """The context `ctx` (M, text width) and the `meta_net` (D -> text width)."""

    def __init__(self, clip_model: CLIP, options: CfgNode):
        super().__init__()
        self.ctx = context_vectors(clip_model, options.CTX_INIT, (options.N_CTX,))
        width, embed_dim = self.ctx.shape[-1], clip_model.text_projection.shape[1]
        self.meta_net = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(embed_dim, embed_dim // REDUCTION),
                relu=nn.ReLU(),
                linear2=nn.Linear(embed_dim // REDUCTION, width),
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        """Compute a context per image: unit-length features (B, D) -> v(x) (B, M, text width)."""
        return self.ctx + self.meta_net(image)[:, None]


class CoCoOpCLIP(PromptedCLIP):
    """CLIP with a context in the class texts that depends on the image."""

    frozen_image_encoder = True
    text_depends_on_image = True

    def __init__(self, clip_model: CLIP, classnames: list[str], options: CfgNode):
        super().__init__(clip_model, len(classnames))
        self.prompt_learner = PromptLearner(clip_model, options)
        self.words = ClassWords(clip_model, classnames, len(self.prompt_learner.ctx))

    def text_features(self) -> Tensor:
        """Return nothing: every image has different text features."""
        return torch.empty(0)

    def conditioned_text_features(self, image: Tensor, classes: slice) -> Tensor:
        """Compute unit-length features of some classes for each image: (B, D) -> (B, C, D)."""
        packed = self.words.packed(classes)
        start, rest = packed.embed(self.prompt_learner(image))  # (B, 1 + M, width) and the packed rows
        return encode_around_context(self.clip, packed, start[:, None], rest)

    def similarities(self, image: Tensor, classes: slice) -> Tensor:
        """Compute cosines of images (B, D) and their texts of some classes: (B, C)."""
        return torch.einsum("bd,bcd->bc", image, self.conditioned_text_features(image, classes))

    def texts_of_a_class(self, batch: int) -> int:
        return batch

    def text_step(self, batch: int, classes: slice) -> Tensor:
        width = self.clip.text_projection.shape[1]
        return self.similarities(torch.zeros(batch, width, device=self.clip.logit_scale.device), classes)

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        # Each image has different texts for all classes, so a block is of images x classes.
        image, training = self.image_features(images), torch.is_grad_enabled()
        if torch.compiler.is_exporting():  # the number of images is open
            return self.clip.logit_scale.exp() * self.similarities(image, slice(0, self.n_classes))
        at_once = self.text_block or (0 if training else TEXTS_AT_ONCE)
        size = len(image) if training else max(at_once // self.n_classes, 1)
        similar = [
            self.in_blocks(partial(self.similarities, part), -(-at_once // len(part)), dim=1)
            for part in image.split(size)
        ]
        return self.clip.logit_scale.exp() * torch.cat(similar)


@TRAINER_REGISTRY.register()
class CoCoOp(ContextTrainer):
    """Conditional context optimization: cross-entropy; the context and the meta-net are trained."""

    config_node = "COCOOP"
    static_step = True

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return CoCoOpCLIP(clip_model, classnames, self.options)
