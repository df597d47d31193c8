"""What the methods with independent prompts in both towers share (IVLP, PromptSRC).

Each side has separate context vectors, replaced before each of its first J layers; nothing couples the sides. Depth 0
leaves a side unchanged: on the text side this is VPT, on the image side deep CoOp.

Attention pattern: as MaPLe.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import (
    CLIP,
    BackboneConfig,
    ClassWords,
    add_parameter,
    context_vectors,
    deep_names,
    encode_image,
    encode_words,
    image_segments,
    split_words,
)
from dassl.config import Checks
from trainers.context import ContextTrainer, fixed_words_and_names
from trainers.prompted import FixedTextCLIP, PromptedCLIP


class PromptLearner(nn.Module):
    """`ctx` and deep text prompts; image prompts; each named by its position in the released code."""

    ignored_keys = ("ZS_image_encoder",)  # frozen CLIP's image tower, in PromptSRC's released files

    def __init__(self, clip_model: CLIP, options: CfgNode):
        super().__init__()
        self.text, self.image = [], []  # names of the parameters, by layer
        if options.PROMPT_DEPTH_TEXT:
            learned, _ = split_words(options.CTX_INIT, options.N_CTX_TEXT)
            self.ctx = context_vectors(clip_model, learned, (options.N_CTX_TEXT,))
            self.text = ["ctx", *self._deep("text_encoder", options.PROMPT_DEPTH_TEXT, self.ctx.shape)]
        if options.PROMPT_DEPTH_VISION:
            shape = (options.N_CTX_VISION, clip_model.visual.proj.shape[0])
            add_parameter(self, "image_encoder.VPT", 0.02 * torch.randn(shape))
            self.image = ["image_encoder.VPT", *self._deep("image_encoder", options.PROMPT_DEPTH_VISION, shape)]

    def _deep(self, side: str, depth: int, shape: Sequence[int]) -> list[str]:
        names = deep_names(side, depth)
        for name in names:
            add_parameter(self, name, 0.02 * torch.randn(shape))
        return names

    def prompts(self, names: list[str]) -> list[Tensor]:
        return [self.get_parameter(name) for name in names]


class IndependentCLIP(FixedTextCLIP):
    """CLIP with independent context in both towers; a side without context is that of zero-shot CLIP."""

    def __init__(
        self,
        clip_model: CLIP,
        classnames: list[str],
        texts: Sequence[str | Sequence[str]],
        options: CfgNode,
        normalize_each: bool = True,
    ):
        super().__init__(clip_model, texts, normalize_each)
        self.prompt_learner = PromptLearner(clip_model, options)
        if self.prompt_learner.text:
            names = fixed_words_and_names(classnames, options.CTX_INIT, options.N_CTX_TEXT)
            self.words = ClassWords(clip_model, names, options.N_CTX_TEXT)

    def class_features(self, classes: slice) -> Tensor:
        learner = self.prompt_learner
        if not learner.text:
            return super().class_features(classes)
        first, *deep = learner.prompts(learner.text)
        return encode_words(self.clip, self.words, first, deep, classes=classes)

    def image_features(self, images: Tensor) -> Tensor:
        learner = self.prompt_learner
        if not learner.image:
            return super().image_features(images)
        first, *deep = learner.prompts(learner.image)
        return encode_image(self.clip, image_segments(self.clip, images, first, deep))


class IndependentTrainer(ContextTrainer):
    """Trains independent context vectors in both towers."""

    checkpoint_name = "VLPromptLearner"
    n_ctx_key = "N_CTX_TEXT"
    splits_words = True
    has_fixed_texts = True

    def check_options(self, checks: Checks) -> None:
        super().check_options(checks)
        checks.at_least("N_CTX_VISION", 1 if self.options.PROMPT_DEPTH_VISION > 0 else 0)
        checks.at_least("PROMPT_DEPTH_TEXT", 0)
        checks.at_least("PROMPT_DEPTH_VISION", 1 if self.options.PROMPT_DEPTH_TEXT == 0 else 0)

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        checks.at_most("PROMPT_DEPTH_TEXT", sizes.text_layers, "the layers of the backbone's text tower")
        if self.options.PROMPT_DEPTH_TEXT:
            super().check_sizes(checks, sizes)
        if self.options.PROMPT_DEPTH_VISION:
            checks.at_most("PROMPT_DEPTH_VISION", sizes.vision_layers, "the layers of the backbone's image tower")

    def has_context(self) -> bool:
        return self.options.PROMPT_DEPTH_TEXT > 0

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return IndependentCLIP(clip_model, classnames, self.fixed_texts(classnames), self.options)
