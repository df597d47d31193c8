"""MaPLe: Khattak et al., Multi-modal Prompt Learning, arXiv 2210.03117.

Context vectors are added to the class texts and the image patches and replaced before each of the first J layers. Those
on the image side are linear maps of those on the text side:

    [_, W_j] = L_j([P_{j-1}, W_{j-1}])   j = 1..J        new prompts before each of the first J text layers (eq. 1, 2)
    P~_k = F_k(P_k)                      k = 0..J-1      coupling functions, linear maps (section 3.2)
    [c_j, E_j, _] = V_j([c_{j-1}, E_{j-1}, F_{j-1}(P_{j-1})])    image layers likewise

Attention pattern: as CoOp on the text side, the context replaced before each of the first J layers; on the image side
[CLS, patches] and the mapped context attend to each other, replaced likewise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import (
    CLIP,
    BackboneConfig,
    ClassWords,
    context_vectors,
    encode_image,
    encode_words,
    image_segments,
    split_words,
)
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.context import ContextTrainer, fixed_words_and_names
from trainers.prompted import PromptedCLIP


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.MAPLE."""
    cfg.TRAINER.MAPLE = CfgNode()
    cfg.TRAINER.MAPLE.N_CTX = 2  # b, the number of context vectors per layer
    cfg.TRAINER.MAPLE.CTX_INIT = "a photo of a"  # the first N_CTX tokens are learned, the others stay fixed
    cfg.TRAINER.MAPLE.PROMPT_DEPTH = 9  # J, the number of layers with new context
    cfg.TRAINER.MAPLE.PREC = "fp32"  # fp32, fp16, bf16 or amp


class PromptLearner(nn.Module):
    """Text context of J layers (`ctx`, `compound_prompts_text`) and its maps to the image side (`proj`, ...)."""

    def __init__(self, clip_model: CLIP, options: CfgNode):
        super().__init__()
        learned, _ = split_words(options.CTX_INIT, options.N_CTX)
        self.ctx = context_vectors(clip_model, learned, (options.N_CTX,))  # P_0
        n_ctx, text_width = self.ctx.shape
        vision_width, deep = clip_model.visual.proj.shape[0], options.PROMPT_DEPTH - 1
        self.proj = nn.Linear(text_width, vision_width)  # F_0
        self.compound_prompts_text = nn.ParameterList(0.02 * torch.randn(n_ctx, text_width) for _ in range(deep))
        self.compound_prompt_projections = nn.ModuleList(nn.Linear(text_width, vision_width) for _ in range(deep))

    def image_prompts(self) -> list[Tensor]:
        """Return F_k(P_k) for k = 0..J-1, each (b, vision width)."""
        maps = zip(self.compound_prompt_projections, self.compound_prompts_text, strict=True)
        return [self.proj(self.ctx), *(project(prompt) for project, prompt in maps)]


class MaPLeCLIP(PromptedCLIP):
    """CLIP with coupled context in both towers."""

    def __init__(self, clip_model: CLIP, classnames: list[str], options: CfgNode):
        super().__init__(clip_model, len(classnames))
        self.prompt_learner = PromptLearner(clip_model, options)
        names = fixed_words_and_names(classnames, options.CTX_INIT, options.N_CTX)
        self.words = ClassWords(clip_model, names, options.N_CTX)

    def class_features(self, classes: slice) -> Tensor:
        learner = self.prompt_learner
        return encode_words(self.clip, self.words, learner.ctx, list(learner.compound_prompts_text), classes=classes)

    def image_features(self, images: Tensor) -> Tensor:
        first, *deep = self.prompt_learner.image_prompts()
        return encode_image(self.clip, image_segments(self.clip, images, first, deep))


@TRAINER_REGISTRY.register()
class MaPLe(ContextTrainer):
    """Multi-modal prompt learning: cross-entropy; the text context and the coupling maps are trained."""

    config_node = "MAPLE"
    static_step = True
    checkpoint_name = "MultiModalPromptLearner"
    splits_words = True

    def check_options(self, checks: Checks) -> None:
        super().check_options(checks)
        checks.at_least("PROMPT_DEPTH", 1)

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        super().check_sizes(checks, sizes)
        layers = (sizes.text_layers, sizes.vision_layers)
        checks.at_most("PROMPT_DEPTH", min(layers), f"the backbone's towers have {layers[0]} and {layers[1]} layers")

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return MaPLeCLIP(clip_model, classnames, self.options)
