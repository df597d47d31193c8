"""CLIP-LoRA: Zanella and Ben Ayed, Low-Rank Few-Shot Adaptation of Vision-Language Models, arXiv 2405.18541.

The frozen maps of queries, keys, and values (and outputs) of both towers get low-rank updates (section 3.2):

    h = W x + gamma B A x        A: r x d, random; B: d x r, zero at the start    (eq. 4)

The texts are fixed, and the loss is cross-entropy. In the released code, gamma is alpha / sqrt(r), not alpha / r, the
logits have a fixed scale of 100, and A x is computed from x with dropout.

Attention pattern: zero-shot CLIP's. The words that all texts begin with run once for all classes.
"""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn
from yacs.config import CfgNode

from clip import (
    CLIP,
    BackboneConfig,
    FixedWords,
    LowRankUpdates,
    encode_fixed_words,
    encode_image,
    plain_image_segments,
)
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.prompted import PromptedCLIP, frozen_text_features

LOGIT_SCALE = 100
ENCODERS = ("text", "vision", "both")
POSITIONS = {  # layers of a tower, counted from 0, as released for ViT-B/16
    "all": slice(0, None),
    "bottom": slice(0, 4),
    "mid": slice(4, 8),
    "up": slice(8, 12),
    "half-bottom": slice(0, 6),
    "half-up": slice(6, 12),
    "top3": slice(9, 12),
}


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.CLIPLORA."""
    cfg.TRAINER.CLIPLORA = CfgNode()
    cfg.TRAINER.CLIPLORA.R = 2  # r, the rank of the updates
    cfg.TRAINER.CLIPLORA.ALPHA = 1.0  # alpha; the updates are scaled by alpha / sqrt(r)
    cfg.TRAINER.CLIPLORA.PARAMS = ["q", "k", "v"]  # the maps with updates: q, k, v, o
    cfg.TRAINER.CLIPLORA.ENCODER = "both"  # the towers with updates: text, vision or both
    cfg.TRAINER.CLIPLORA.POSITION = "all"  # their layers: all, bottom, mid, up, half-bottom, half-up or top3
    cfg.TRAINER.CLIPLORA.DROPOUT = 0.25  # of the inputs of the updates, during training
    cfg.TRAINER.CLIPLORA.PREC = "fp32"  # fp32, fp16, bf16 or amp


def updated_layers(position: str, layers: int) -> list[int]:
    """Return the layers of a tower with updates; none if the position is above all its layers."""
    return list(range(layers))[POSITIONS[position]]


class LowRankLearner(nn.Module):
    """The updates `layer_0`, `layer_1`, ...: of the text tower's layers, and then of the image tower's."""

    def __init__(self, clip_model: CLIP, options: CfgNode):
        super().__init__()
        self.depths: dict[str, list[int]] = {"text": [], "vision": []}
        towers = {"text": clip_model.transformer, "vision": clip_model.visual.transformer}
        scale = options.ALPHA / math.sqrt(options.R)
        for side, tower in towers.items():
            if options.ENCODER not in (side, "both"):
                continue
            self.depths[side] = updated_layers(options.POSITION, len(tower.blocks))
            for depth in self.depths[side]:
                width = tower.blocks[depth].ln_1.normalized_shape[0]
                update = LowRankUpdates(width, options.PARAMS, options.R, scale, options.DROPOUT)
                self.add_module(f"layer_{len(self._modules)}", update)

    def adapters(self, side: str) -> dict[int, LowRankUpdates]:
        """Return the updates of a tower ("text" or "vision") by layer."""
        first = len(self.depths["text"]) if side == "vision" else 0
        modules = (self.get_submodule(f"layer_{first + i}") for i in range(len(self.depths[side])))
        return {depth: cast(LowRankUpdates, module) for depth, module in zip(self.depths[side], modules, strict=True)}


class CLIPLoRACLIP(PromptedCLIP):
    """CLIP with low-rank updates in its towers."""

    frozen: Tensor  # class features (C, D), if the text tower has no updates

    def __init__(self, clip_model: CLIP, texts: list[str], options: CfgNode):
        super().__init__(clip_model, len(texts))
        self.prompt_learner = LowRankLearner(clip_model, options)
        text, image = self.prompt_learner.depths.values()
        self.frozen_image_encoder = not image
        if text:
            self.words = FixedWords(clip_model, texts, below=text[0])
        else:
            self.register_buffer("frozen", frozen_text_features(clip_model, texts), persistent=False)

    def class_features(self, classes: slice) -> Tensor:
        if not self.prompt_learner.depths["text"]:
            return self.frozen[classes]
        return encode_fixed_words(self.clip, self.words, self.prompt_learner.adapters("text"), classes=classes)

    def image_features(self, images: Tensor) -> Tensor:
        if self.frozen_image_encoder:
            return super().image_features(images)
        segments = plain_image_segments(self.clip, images)
        return encode_image(self.clip, segments, adapters=self.prompt_learner.adapters("vision"))

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        return LOGIT_SCALE * image @ text.t()


@TRAINER_REGISTRY.register()
class CLIPLoRA(PromptTrainer):
    """Low-rank adaptation: cross-entropy; the low-rank updates are trained."""

    config_node = "CLIPLORA"
    static_step = True
    checkpoint_name = "lora_weights"
    has_fixed_texts = False

    def check_options(self, checks: Checks) -> None:
        checks.one_of("ENCODER", ENCODERS)
        checks.one_of("POSITION", POSITIONS)
        checks.at_least("R", 1)
        checks.above("ALPHA", 0)
        checks.holds("DROPOUT", 0 <= self.options.DROPOUT < 1, "at least 0 and below 1")
        checks.one_of("PARAMS", "qkvo")
        checks.holds("PARAMS", bool(self.options.PARAMS), "at least one map")

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        fewest = min(sizes.text_layers, sizes.vision_layers)
        first = POSITIONS[self.options.POSITION].start if self.options.POSITION in POSITIONS else 0
        checks.holds("POSITION", first < fewest, f"a position below the backbone's {fewest} layers")

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return CLIPLoRACLIP(clip_model, self.class_texts(classnames), self.options)
