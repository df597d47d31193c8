"""VPT: Jia et al., Visual Prompt Tuning, arXiv 2203.12119.

n learned vectors are added to the image patches; the rest of the tower is frozen.

    shallow  [x_1, Z_1, E_1] = L_1([x_0, P, E_0]),  [x_i, Z_i, E_i] = L_i([x_{i-1}, Z_{i-1}, E_{i-1}])     (eq. 4, 5)
    deep     [x_i, _, E_i] = L_i([x_{i-1}, P_{i-1}, E_{i-1}])      before each of the first J layers        (eq. 7)
    y        = Head(x_N)                                                                                    (eq. 6, 8)

PROMPT_DEPTH_VISION is J; 1 is shallow. HEAD text classifies by the class texts, as CLIP does; linear is the paper's
Head. Ablations of section 4.3: LOCATION add sums prompts and tokens, CLS included; POOL selects the tokens, after the
final LayerNorm, whose mean the head gets. TUNE selects the paper's baselines with a linear head (table 1): linear (only
the head), partial (and the last PARTIAL layers), bias (BitFit), prompts+bias, and full.

Attention pattern: [CLS, patches] and the prompts attend to each other; the text side is zero-shot CLIP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, BackboneConfig, Segment, add_parameter, deep_names, image_segments
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.prompted import FixedTextCLIP, PromptedCLIP

CHOICES = {
    "HEAD": ("text", "linear"),
    "LOCATION": ("prepend", "add"),
    "POOL": ("cls", "patches", "prompts", "all"),
    "TUNE": ("prompts", "linear", "partial", "bias", "prompts+bias", "full"),
}
HEAD_BIAS = -math.log(99)  # of the released linear head: every class starts with a probability of 1 %


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.VPT."""
    cfg.TRAINER.VPT = CfgNode()
    cfg.TRAINER.VPT.N_CTX_VISION = 8  # n, prompts per layer; LOCATION add has one per token
    cfg.TRAINER.VPT.PROMPT_DEPTH_VISION = 1  # J, the number of layers with new prompts; 1: shallow
    cfg.TRAINER.VPT.DROPOUT = 0.0  # on the prompts
    cfg.TRAINER.VPT.HEAD = "text"  # text: class texts; linear: a trained map from the pooled tokens to classes
    cfg.TRAINER.VPT.LOCATION = "prepend"  # prepend: next to the patches; add: summed with CLS and patches
    cfg.TRAINER.VPT.POOL = "cls"  # cls, patches, prompts, or all (patches and prompts): the tokens whose mean is used
    cfg.TRAINER.VPT.TUNE = "prompts"  # prompts; with HEAD linear also linear, partial, bias, prompts+bias, or full
    cfg.TRAINER.VPT.PARTIAL = 1  # layers that TUNE partial trains, from the last one, and the final LayerNorm
    cfg.TRAINER.VPT.CTX_INIT = ""  # in released files; not used
    cfg.TRAINER.VPT.PREC = "fp32"  # fp32, fp16, bf16 or amp


class PromptLearner(nn.Module):
    """The prompts, named by their position in the released code, and what a linear head trains in addition."""

    def __init__(self, clip_model: CLIP, n_classes: int, options: CfgNode):
        super().__init__()
        tower = clip_model.visual
        tokens, width = tower.positional_embedding.shape[0], tower.proj.shape[0]
        self.names: list[str] = []
        if "prompts" in options.TUNE:
            n = options.N_CTX_VISION if options.LOCATION == "prepend" else tokens
            bound = (6 / (tower.conv1.weight[0].numel() + width)) ** 0.5  # as in the paper (section 4.1)
            self.names = ["image_encoder.VPT", *deep_names("image_encoder", options.PROMPT_DEPTH_VISION)]
            for name in self.names:
                add_parameter(self, name, torch.empty(n, width).uniform_(-bound, bound))
        if options.TUNE not in ("prompts", "linear"):
            self.tower = tower
            last = range(len(tower.transformer.blocks) - options.PARTIAL, len(tower.transformer.blocks))
            for name, p in tower.named_parameters():
                p.requires_grad_(is_tuned(name, options.TUNE, last))
        if options.HEAD == "linear":
            self.head = nn.Linear(width, n_classes)
            nn.init.kaiming_normal_(self.head.weight, mode="fan_out")
            nn.init.constant_(self.head.bias, HEAD_BIAS)
        self.dropout = nn.Dropout(options.DROPOUT)

    def prompts(self, batch: int) -> list[Tensor]:
        """Prompts of the first J layers, each (B, n, vision width), with separate dropout for each image."""
        return [self.dropout(self.get_parameter(name).expand(batch, -1, -1)) for name in self.names]


def is_tuned(name: str, tune: str, last: range) -> bool:
    """Whether TUNE trains this parameter of the image tower; `proj` belongs to the text head and never is.

    Args:
        last: the layers that TUNE partial trains.
    """
    if name == "proj":
        return False
    if tune == "partial":
        return name.startswith(("ln_post.", *(f"transformer.resblocks.{i}." for i in last)))
    return tune == "full" or name.endswith("bias")


class VPTCLIP(FixedTextCLIP):
    """CLIP with visual prompts."""

    def __init__(self, clip_model: CLIP, classnames: list[str], texts: Sequence[str | Sequence[str]], options: CfgNode):
        super().__init__(clip_model, texts)
        self.prompt_learner = PromptLearner(clip_model, len(classnames), options)
        self.per_class_parameters = options.HEAD == "linear"
        self.head, self.location, self.pool = options.HEAD, options.LOCATION, options.POOL

    def segments(self, images: Tensor) -> dict[str, Segment]:
        """[CLS, patches], followed by the prompts unless there are none or they are summed with the patches."""
        if not self.prompt_learner.names or self.location == "add":
            return {"image": Segment(self.clip.visual.embed(images), attends_to=("image",))}
        first, *deep = self.prompt_learner.prompts(len(images))
        segments = image_segments(self.clip, images, first, deep)
        segments["prompts"].wanted = self.pool in ("prompts", "all")
        return segments

    def add_prompts(self, depth: int, segments: dict[str, Segment]) -> None:
        """LOCATION add: sum the tokens of this layer and its prompts."""
        names = self.prompt_learner.names
        if depth < len(names):
            image, prompt = segments["image"], self.prompt_learner.get_parameter(names[depth])
            prompt = self.prompt_learner.dropout(prompt.expand(len(image.tokens), -1, -1))
            image.tokens = image.tokens + prompt.to(image.tokens)

    def pooled(self, images: Tensor) -> Tensor:
        """The mean of the tokens that POOL selects, after the last layer and the final LayerNorm: (B, vision width)."""
        segments, tower = self.segments(images), self.clip.visual
        if self.pool == "cls":
            segments["image"].output = torch.zeros(1, 1, dtype=torch.long, device=images.device)
        x = tower.transformer(segments, before_layer=self.add_prompts if self.location == "add" else None)
        tokens = {"cls": x["image"], "patches": x["image"][:, 1:], "prompts": x.get("prompts")}
        if self.pool == "all":
            tokens["all"] = torch.cat(
                [each for name, each in tokens.items() if name != "cls" and each is not None], dim=1
            )
        return tower.ln_post(tokens[self.pool]).mean(dim=1)

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize((self.pooled(images) @ self.clip.visual.proj).float(), dim=-1)

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        if self.head == "text":
            return super().forward(images, text)
        return self.prompt_learner.head(self.pooled(images).float())


@TRAINER_REGISTRY.register()
class VPT(PromptTrainer):
    """Visual prompt tuning: cross-entropy; the prompts are trained, and the head if it is linear."""

    config_node = "VPT"

    def check_options(self, checks: Checks) -> None:
        for key, choices in CHOICES.items():
            checks.one_of(key, choices)
        checks.at_least("N_CTX_VISION", 1)
        checks.at_least("PROMPT_DEPTH_VISION", 1)
        checks.at_least("PARTIAL", 1)
        options = self.options
        tune, location = options.TUNE, options.LOCATION
        has_prompt_tokens = "prompts" in tune and location == "prepend"
        right = 0 <= options.DROPOUT < 1
        checks.expect(right, "TRAINER.VPT.DROPOUT", "at least 0 and below 1", options.DROPOUT)
        right = tune == "prompts" or options.HEAD == "linear"
        checks.expect(right, "TRAINER.VPT.HEAD", f"linear with TUNE {tune}", options.HEAD)
        right = tune in ("prompts", "linear") or options.PREC in ("fp32", "amp")
        checks.expect(right, "TRAINER.VPT.PREC", f"fp32 or amp with TUNE {tune}", options.PREC)
        right = options.POOL != "prompts" or has_prompt_tokens
        expected = f"cls, patches, or all with TUNE {tune} and LOCATION {location}"
        checks.expect(right, "TRAINER.VPT.POOL", expected, options.POOL)

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        layers = sizes.vision_layers
        for key in ("PROMPT_DEPTH_VISION", "PARTIAL"):
            checks.at_most(key, layers, "the layers of the backbone's image tower")

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return VPTCLIP(clip_model, classnames, self.fixed_texts(classnames), self.options)
