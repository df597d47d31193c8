"""VPT: Jia et al., Visual Prompt Tuning, arXiv 2203.12119.

n learned vectors are added to the image patches; the rest of the tower is frozen.

    shallow  [x_1, Z_1, E_1] = L_1([x_0, P, E_0]),  [x_i, Z_i, E_i] = L_i([x_{i-1}, Z_{i-1}, E_{i-1}])     (eq. 4, 5)
    deep     [x_i, _, E_i] = L_i([x_{i-1}, P_{i-1}, E_{i-1}])      before each of J layers                  (eq. 7)
    y        = Head(x_N)                                                                                    (eq. 6, 8)

PROMPT_DEPTH_VISION is J; 1 is shallow. HEAD text classifies by the class texts, as CLIP does; linear is the paper's
Head. Ablations (section 4.3): PROMPTS_FROM last prompts the last J layers; SHARED uses one P in all of them; LOCATION
add sums prompts and tokens, CLS included, and pixel learns an image of n patches; POOL selects the tokens, after the
final LayerNorm, whose mean the head gets. TUNE selects what else is trained or instead (`trainers.finetuning`).

Attention pattern: [CLS, patches] and the prompts attend to each other; the text side is zero-shot CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, BackboneConfig, Segment, add_parameter, image_segments
from clip.towers import VisionTransformer
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.finetuning import TUNES_TOWER, BottleneckAdapter, SideNetwork, build_head, head_groups, unfreeze
from trainers.prompted import FixedTextCLIP, PromptedCLIP

CHOICES = {
    "HEAD": ("text", "linear"),
    "LOCATION": ("prepend", "add", "pixel"),
    "POOL": ("cls", "patches", "prompts", "all"),
    "PROMPTS_FROM": ("first", "last"),
    "SIDE_WEIGHTS": ("imagenet", "random"),
    "TUNE": ("prompts", "linear", "partial", "bias", "prompts+bias", "full", "adapter", "side"),
}


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.VPT."""
    cfg.TRAINER.VPT = CfgNode()
    cfg.TRAINER.VPT.N_CTX_VISION = 8  # n, prompts per layer; LOCATION add has one per token
    cfg.TRAINER.VPT.PROMPT_DEPTH_VISION = 1  # J, the number of layers with new prompts; 1: shallow
    cfg.TRAINER.VPT.PROMPTS_FROM = "first"  # which J layers: the first or the last ones
    cfg.TRAINER.VPT.SHARED = False  # the same prompts in all J layers
    cfg.TRAINER.VPT.DROPOUT = 0.0  # on the prompts
    cfg.TRAINER.VPT.HEAD = "text"  # text: class texts; linear: a trained map from the pooled tokens to classes
    cfg.TRAINER.VPT.HEAD_LAYERS = 1  # linear maps of HEAD linear; k > 1: MLP-k, with ReLU and batch norm
    cfg.TRAINER.VPT.LOCATION = "prepend"  # prepend: next to the patches; add: summed with CLS and patches; pixel
    cfg.TRAINER.VPT.POOL = "cls"  # cls, patches, prompts, or all (patches and prompts): the tokens whose mean is used
    cfg.TRAINER.VPT.TUNE = "prompts"  # with HEAD linear also linear, partial, bias, prompts+bias, full, adapter, side
    cfg.TRAINER.VPT.PARTIAL = 1  # layers that TUNE partial trains, from the last one, and the final LayerNorm
    cfg.TRAINER.VPT.ADAPTER_REDUCTION = 8  # width of the tower / width of the adapters; the paper tries 8, 64, 256
    cfg.TRAINER.VPT.SIDE_WEIGHTS = "imagenet"  # of the side network: imagenet (downloaded) or random
    cfg.TRAINER.VPT.CTX_INIT = ""  # in released files; not used
    cfg.TRAINER.VPT.PREC = "fp32"  # fp32, fp16, bf16 or amp


class PromptLearner(nn.Module):
    """The prompts, named by their layer as in the released code, and what TUNE trains in addition."""

    def __init__(self, clip_model: CLIP, n_classes: int, options: CfgNode):
        super().__init__()
        tower = clip_model.visual
        blocks, width = tower.transformer.blocks, tower.proj.shape[0]
        self.options = options
        depth = options.PROMPT_DEPTH_VISION if "prompts" in options.TUNE else 0
        self.first_layer = len(blocks) - depth if options.PROMPTS_FROM == "last" else 0
        layers = range(self.first_layer, self.first_layer + depth)
        bound = (6 / (tower.conv1.weight[0].numel() + width)) ** 0.5  # as in the paper (section 4.1)
        self.names = [prompt_name(layers[0] if options.SHARED else i) for i in layers]
        for name in dict.fromkeys(self.names):
            add_parameter(self, name, torch.empty(self.prompt_shape(tower)).uniform_(-bound, bound))
        if options.TUNE in TUNES_TOWER:
            self.tower = unfreeze(tower, options.TUNE, options.PARTIAL)
        if options.TUNE == "adapter":
            self.adapters = nn.ModuleList(BottleneckAdapter(width, options.ADAPTER_REDUCTION) for _ in blocks)
        if options.TUNE == "side":
            self.side = SideNetwork(width, options.SIDE_WEIGHTS)
        if options.HEAD == "linear":
            self.head = build_head(width, n_classes, options.HEAD_LAYERS)
        self.dropout = nn.Dropout(options.DROPOUT)

    def prompt_shape(self, tower: VisionTransformer) -> tuple[int, ...]:
        """Return (n, width); LOCATION add: one vector per token; pixel: an image of n patches side by side."""
        n, (tokens, width) = self.options.N_CTX_VISION, tower.positional_embedding.shape
        channels, height, patch_width = tower.conv1.weight.shape[1:]
        shapes = {"prepend": (n, width), "add": (tokens, width), "pixel": (channels, height, n * patch_width)}
        return shapes[self.options.LOCATION]

    def prompts(self, number: int, batch: int) -> Tensor:
        """Return prompts of one of the J layers, (B, *prompt_shape), with separate dropout for each image."""
        prompts = self.get_parameter(self.names[number])
        return self.dropout(prompts.expand(batch, *prompts.shape))


def prompt_name(layer: int) -> str:
    """Return the name that released checkpoints give to the prompts before a layer, counted from 0."""
    return f"image_encoder.transformer.resblocks.{layer}.VPT_shallow" if layer else "image_encoder.VPT"


class VPTCLIP(FixedTextCLIP):
    """CLIP with visual prompts."""

    def __init__(self, clip_model: CLIP, classnames: list[str], texts: Sequence[str | Sequence[str]], options: CfgNode):
        super().__init__(clip_model, texts)
        self.prompt_learner = PromptLearner(clip_model, len(classnames), options)
        self.per_class_parameters = options.HEAD == "linear"
        self.head, self.location, self.pool = options.HEAD, options.LOCATION, options.POOL

    def segments(self, images: Tensor) -> dict[str, Segment]:
        """Return [CLS, patches], followed by the prompts unless there are none or they are summed with the patches."""
        learner, tower = self.prompt_learner, self.clip.visual
        if not learner.names or self.location == "add":
            return {"image": Segment(tower.embed(images), attends_to=("image",))}
        first, *deep = (learner.prompts(number, images.shape[0]) for number in range(len(learner.names)))
        if self.location == "pixel":  # as patches without a position
            first = tower.conv1(first.to(tower.conv1.weight)).flatten(2).transpose(1, 2)
        segments = image_segments(self.clip, images, first, deep, learner.first_layer)
        segments["prompts"].wanted = self.pool in ("prompts", "all")
        return segments

    def add_prompts(self, depth: int, segments: dict[str, Segment]) -> None:
        """Sum the tokens of this layer and its prompts (LOCATION add)."""
        number, image = depth - self.prompt_learner.first_layer, segments["image"]
        if 0 <= number < len(self.prompt_learner.names):
            prompts = self.prompt_learner.prompts(number, image.tokens.shape[0])
            image.tokens = image.tokens + prompts.to(image.tokens)

    def pooled(self, images: Tensor) -> Tensor:
        """Average the tokens that POOL selects, after the last layer and the final LayerNorm: (B, vision width)."""
        segments, tower = self.segments(images), self.clip.visual
        if self.pool == "cls":
            segments["image"].output = torch.zeros(1, 1, dtype=torch.long, device=segments["image"].tokens.device)
        adapters = dict(enumerate(getattr(self.prompt_learner, "adapters", ())))
        add_prompts = self.add_prompts if self.location == "add" else None
        x = tower.transformer(segments, before_layer=add_prompts, adapters=adapters)
        patches, prompts = x["image"][:, 1:], x.get("prompts")
        both = patches if prompts is None else torch.cat([patches, prompts], dim=1)
        tokens = {"cls": x["image"], "patches": patches, "prompts": prompts, "all": both}
        return tower.ln_post(tokens[self.pool]).mean(dim=1)

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize((self.pooled(images) @ self.clip.visual.proj).float(), dim=-1)

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        if self.head == "text":
            return super().forward(images, text)
        feature = self.pooled(images).float()
        if hasattr(self.prompt_learner, "side"):
            feature = self.prompt_learner.side(images, feature)
        return self.prompt_learner.head(feature)


@TRAINER_REGISTRY.register()
class VPT(PromptTrainer):
    """Visual prompt tuning: cross-entropy; the prompts are trained, and the head if it is linear."""

    config_node = "VPT"
    static_step = True

    def check_options(self, checks: Checks) -> None:
        for key, choices in CHOICES.items():
            checks.one_of(key, choices)
        for key in ("N_CTX_VISION", "PROMPT_DEPTH_VISION", "PARTIAL", "HEAD_LAYERS", "ADAPTER_REDUCTION"):
            checks.at_least(key, 1)
        options = self.options
        head, tune, location, depth = options.HEAD, options.TUNE, options.LOCATION, options.PROMPT_DEPTH_VISION
        has_prompt_tokens = "prompts" in tune and location != "add"
        checks.holds("DROPOUT", 0 <= options.DROPOUT < 1, "at least 0 and below 1")
        checks.holds("HEAD", tune == "prompts" or head == "linear", f"linear with TUNE {tune}")
        checks.holds("HEAD_LAYERS", options.HEAD_LAYERS == 1 or head == "linear", f"1 with HEAD {head}")
        if tune in TUNES_TOWER:
            checks.holds("PREC", options.PREC in ("fp32", "amp"), f"fp32 or amp with TUNE {tune}")
        if location == "pixel":
            checks.holds("PROMPT_DEPTH_VISION", depth == 1, "1 with LOCATION pixel")
            checks.holds("PROMPTS_FROM", options.PROMPTS_FROM == "first", "first with LOCATION pixel")
        expected = f"cls, patches, or all with TUNE {tune} and LOCATION {location}"
        checks.holds("POOL", options.POOL != "prompts" or has_prompt_tokens, expected)

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        for key in ("PROMPT_DEPTH_VISION", "PARTIAL"):
            checks.at_most(key, sizes.vision_layers, "the layers of the backbone's image tower")
        checks.at_most("ADAPTER_REDUCTION", sizes.vision_width, "the width of the backbone's image tower")

    def needs_whole_batches(self) -> bool:
        return self.options.HEAD_LAYERS > 1  # batch norm

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return VPTCLIP(clip_model, classnames, self.fixed_texts(classnames), self.options)

    def parameter_groups(self, learner: nn.Module) -> list[dict] | None:
        return head_groups(learner) if self.options.HEAD == "linear" else None
