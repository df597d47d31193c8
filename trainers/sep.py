"""SEP: Yao et al., Self-Enhanced Prompt tuning, arXiv 2405.15549.

Before chosen layers, the learned prompts are fused with tokens of the pretrained model, and the result replaces them.
The Token Fusion Module computes the next prompts from the prompts P and n representative tokens T:

    F  = s1 T + (1 - s1) MHA(query LN(P), key = value LN(T))           s1, s2 learned, start at 0.75
    P' = s2 F + (1 - s2) MLP(LN(F))                                    MLP: width -> 256 -> width, no biases

Text: T are the n tokens after the prompts. Image: T are the n_v tokens of highest energy (mean square). Both features
are averaged with those of frozen CLIP, t0 and i0. V are learned prototypes of the classes:

    t = (t~ + t0) / |.|,  i = (i~ + i0) / |.|
    L = CE(i t' / tau) + W (1 - cos(t, t0)) + W_V (1 - cos(i, i0)) + W_P (CE(10 cos(i, V)) + CE(10 cos(i0, V)))

SELECT instance is the paper's form: each text and each image is fused separately. SELECT batch is the released code:
the whole batch has one set of tokens, and slot j of a text or image attends to slot j of all classes or images, so that
a prediction depends on the other images in its batch. Ablations: PROMPTS on one side, W_P 0 for no prototypes, TOKENS.

Attention pattern: as MaPLe; the fused prompts are the replacements.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

import clip
from basics import notify
from clip.attention import Attention
from clip.towers import QuickGELU
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.context import ContextTrainer
from trainers.features import class_means
from trainers.prompted import FixedTextCLIP, PromptedCLIP, distance
from trainers.tokens import SELECTIONS, replace_before, select_tokens

PROTOTYPE_SCALE = 10.0  # of the released code
HEAD_WIDTH, MLP_WIDTH = 64, 256  # of its fusion module

CHOICES = {
    "SELECT": ("instance", "batch"),
    "TOKENS": SELECTIONS,
    "PROMPTS": ("both", "text", "image"),
}


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.SEP."""
    cfg.TRAINER.SEP = CfgNode()
    cfg.TRAINER.SEP.N_CTX = 6  # n, text prompts and representative tokens
    cfg.TRAINER.SEP.N_CTX_V = 4  # n_v, image prompts and representative tokens
    cfg.TRAINER.SEP.CTX_INIT = ""  # words to start from, "a photo of a"; their number replaces N_CTX
    cfg.TRAINER.SEP.LAYERS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]  # layers before which prompts are fused, from 0
    cfg.TRAINER.SEP.SELECT = "instance"  # instance (the paper) or batch (the released code)
    cfg.TRAINER.SEP.TOKENS = "highest"  # image tokens: of the highest or lowest energy, or the first: CLS and patches
    cfg.TRAINER.SEP.PROMPTS = "both"  # both, text, or image; the other side is zero-shot CLIP
    cfg.TRAINER.SEP.W = 8.0  # weight of the text features' consistency with frozen CLIP
    cfg.TRAINER.SEP.W_V = 6.0  # weight of the image features' consistency
    cfg.TRAINER.SEP.W_P = 0.5  # weight of the prototypes' cross-entropies
    cfg.TRAINER.SEP.PREC = "fp32"  # fp32, fp16, bf16 or amp


class TokenFusion(nn.Module):
    """Fuses n prompts P and n tokens T of the pretrained model into n prompts P'; parameters have released names."""

    def __init__(self, width: int):
        super().__init__()
        self.promt_attention_visual = Attention(width, max(width // HEAD_WIDTH, 1))
        nn.init.xavier_uniform_(self.promt_attention_visual.in_proj_weight)
        nn.init.zeros_(self.promt_attention_visual.out_proj.bias)
        self.ln_pa_1_visual, self.ln_pa_2_visual = nn.LayerNorm(width), nn.LayerNorm(width)
        down, up = nn.Linear(width, MLP_WIDTH, bias=False), nn.Linear(MLP_WIDTH, width, bias=False)
        self.mlp_pa_visual = nn.Sequential(OrderedDict(c_fc1=down, gelu1=QuickGELU(), c_proj=up))
        self.scale1, self.scale2 = nn.Parameter(torch.full((1,), 0.75)), nn.Parameter(torch.full((1,), 0.75))

    def forward(self, tokens: Tensor, prompts: Tensor, across: bool) -> Tensor:
        """Fuse tokens (N, n, width) and prompts (N or 1, n, width) into float32 prompts (N, n, width).

        Args:
            across: attend across the N rows, slot by slot (as in the released code), not across the n slots of a row.
        """
        tokens, prompts = tokens.float(), prompts.float().expand(tokens.shape[0], -1, -1)
        x, to = self.ln_pa_1_visual(prompts), self.ln_pa_1_visual(tokens)
        if across:
            x, to = x.transpose(0, 1), to.transpose(0, 1)
        attended = self.promt_attention_visual.cross_attend(x, to)
        fused = self.scale1 * tokens + (1 - self.scale1) * (attended.transpose(0, 1) if across else attended)
        return self.scale2 * fused + (1 - self.scale2) * self.mlp_pa_visual(self.ln_pa_2_visual(fused))


class PromptLearner(nn.Module):
    """Prompts `ctx`, `ctx_visual`; a fusion module per layer and side; the prototypes `VPT_fc.weight` (C, D)."""

    def __init__(self, clip_model: clip.CLIP, n_classes: int, options: CfgNode):
        super().__init__()
        text_width, (vision_width, embed_dim) = clip_model.ln_final.weight.shape[0], clip_model.visual.proj.shape
        # In this order: it decides the random numbers that each module starts from.
        if options.PROMPTS != "image":
            self.ctx = clip.context_vectors(clip_model, options.CTX_INIT, (options.N_CTX,))
        if options.PROMPTS != "text":
            self.ctx_visual = nn.Parameter(0.02 * torch.randn(options.N_CTX_V, vision_width))
        if options.PROMPTS != "image":
            text = TokenFusion(text_width)
            self.prompt_projections = nn.ModuleList(copy.deepcopy(text) for _ in options.LAYERS)  # all start equal
        if options.PROMPTS != "text":
            image = TokenFusion(vision_width)
            self.visual_prompts = nn.ModuleList(copy.deepcopy(image) for _ in options.LAYERS)
        self.VPT_fc = nn.Linear(embed_dim, n_classes, bias=False)
        # Not loaded: the prototypes, which belong to their classes and are used in training only; and unused tensors of
        # released files: the originals of the copies, a LayerNorm, spare copies.
        spare = range(len(options.LAYERS), clip_model.config.text_layers)
        self.ignored_keys = ["VPT_fc", "meta_net_", "visual_meta_net_", "ln_pa_1_token"]
        self.ignored_keys += [f"{name}.{i}" for name in ("prompt_projections", "visual_prompts") for i in spare]


class SEPCLIP(FixedTextCLIP):
    """CLIP with self-enhanced prompts on both sides."""

    def __init__(self, clip_model: clip.CLIP, classnames: list[str], texts: list[list[str]], options: CfgNode):
        super().__init__(clip_model, texts)
        self.prompt_learner = PromptLearner(clip_model, len(classnames), options)
        self.layers, self.across = list(options.LAYERS), options.SELECT == "batch"
        self.independent_classes = not self.across
        self.prompts, self.chosen = options.PROMPTS, options.TOKENS
        if self.prompts != "image":
            n_ctx = len(self.prompt_learner.ctx)
            self.words = clip.ClassWords(clip_model, classnames, n_ctx, at_least=n_ctx)

    def class_features(self, classes: slice) -> Tensor:
        learner = self.prompt_learner
        if self.prompts == "image":
            return super().class_features(classes)

        def fused(i: int, segments: dict[str, clip.Segment]) -> Tensor:
            tokens = clip.leading_tokens(segments["rest"], len(learner.ctx))
            return learner.prompt_projections[i](tokens, segments["ctx"].tokens, self.across)

        fuse = replace_before(self.layers, "ctx", fused)
        text = clip.encode_words(self.clip, self.words, learner.ctx, before_layer=fuse, classes=classes)
        return F.normalize(text + super().class_features(classes), dim=-1)

    def both_image_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return frozen CLIP's features i0 and the averaged features i, each (B, D)."""
        learner, i0 = self.prompt_learner, super().image_features(images)
        if self.prompts == "text":
            return i0, i0

        def fused(i: int, segments: dict[str, clip.Segment]) -> Tensor:
            tokens = select_tokens(segments["image"].tokens, len(learner.ctx_visual), self.chosen, self.across)
            return learner.visual_prompts[i](tokens, segments["prompts"].tokens, self.across)

        image = clip.image_segments(self.clip, images, learner.ctx_visual)
        i = clip.encode_image(self.clip, image, before_layer=replace_before(self.layers, "prompts", fused))
        return i0, F.normalize(i + i0, dim=-1)

    def image_features(self, images: Tensor) -> Tensor:
        return self.both_image_features(images)[1]


@TRAINER_REGISTRY.register()
class SEP(ContextTrainer):
    """Self-enhanced prompt tuning: prompts, fusion modules, and prototypes are trained."""

    model: SEPCLIP
    config_node = "SEP"
    static_step = True
    has_fixed_texts = True

    def check_options(self, checks: Checks) -> None:
        for key, choices in CHOICES.items():
            checks.one_of(key, choices)
        checks.at_least(("W", "W_V", "W_P"), 0)
        super().check_options(checks)
        checks.at_least("N_CTX_V", 1)
        block = self.cfg.MODEL.TEXT_BLOCK
        in_one = self.options.SELECT != "batch" or block in ("auto", "0")
        checks.expect(in_one, "MODEL.TEXT_BLOCK", "auto or 0 with TRAINER.SEP.SELECT batch", block)

    def needs_whole_batches(self) -> bool:
        return self.options.SELECT == "batch"

    def check_sizes(self, checks: Checks, sizes: clip.BackboneConfig) -> None:
        n_ctx = self.n_context()
        self.check_room(checks, sizes, n_ctx, least=1 + n_ctx)  # [SOS], and n tokens after the prompts
        layers, most = self.options.LAYERS, min(sizes.text_layers, sizes.vision_layers)
        checks.holds("LAYERS", layers == sorted({*layers} & {*range(most)}), f"increasing numbers below {most}")
        tokens = 1 + (sizes.image_size // sizes.patch_size) ** 2
        checks.at_most("N_CTX_V", tokens, "the tokens of an image")

    def has_context(self) -> bool:
        return self.options.PROMPTS != "image"

    def build_method(self, clip_model: clip.CLIP, classnames: list[str]) -> PromptedCLIP:
        if self.options.SELECT == "batch":
            notify("TRAINER.SEP.SELECT batch: as released, a prediction depends on the other images in its batch")
        return SEPCLIP(clip_model, classnames, self.fixed_texts(classnames), self.options)

    @torch.no_grad()
    def before_train(self) -> None:
        """Initialize the prototype of each class as the mean of frozen CLIP's features of its training images."""
        self.model.prompt_learner.VPT_fc.weight.copy_(class_means(self))
        super().before_train()

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        model, cross_entropy = self.model, self.cross_entropy
        (i0, i), t0, t = model.both_image_features(images), model.features, model.text_features()
        logits, v = model.logits(i, t), F.normalize(model.prompt_learner.VPT_fc.weight, dim=-1)
        prototypes = sum(cross_entropy(PROTOTYPE_SCALE * f @ v.t(), labels) for f in (i, i0))
        consistency = self.options.W * distance(t, t0) + self.options.W_V * distance(i, i0)
        parts = {"ce": cross_entropy(logits, labels), "consistency": consistency}
        parts["prototypes"] = self.options.W_P * prototypes
        self.loss_parts = {name: part.detach() for name, part in parts.items()}
        return sum(parts.values()), logits
