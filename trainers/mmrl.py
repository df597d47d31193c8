"""MMRL: Guo and Gu, Multi-Modal Representation Learning for Vision-Language Models, arXiv 2503.08497.

K representation tokens, linear maps of one shared table R (K x r), join both towers at layer J and are replaced before
each later layer (section 3.2); layers are counted from 1:

    V_l = F^v_l(R), T_l = F^t_l(R)        l = J..L
    f = CLS through the frozen projection; f_r = mean of the K tokens through a trained one, P^r
    L = alpha CE(100 f t) + (1 - alpha) CE(100 f_r t) + lambda (1 - cos(f, f_0)) + lambda (1 - cos(t, t_0))

with frozen CLIP's f_0 and t_0. Logits are alpha f t + (1 - alpha) f_r t on the trained classes, and f t on others. As
released, inserted text tokens get no positions, a side's maps start equal, and P^r does not start at CLIP's.

Attention pattern: [CLS, patches] and the K tokens attend to each other; all words attend to the tokens after [SOS].
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

import clip
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.inference import described_classes
from trainers.prompted import PromptedCLIP, distance, frozen_text_features


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.MMRL."""
    cfg.TRAINER.MMRL = CfgNode()
    cfg.TRAINER.MMRL.N_REP_TOKENS = 5  # K, the number of representation tokens
    cfg.TRAINER.MMRL.REP_DIM = 512  # r, the width of their table
    cfg.TRAINER.MMRL.REP_LAYERS = [6, 7, 8, 9, 10, 11, 12]  # J..L, the layers with these tokens, counted from 1
    cfg.TRAINER.MMRL.ALPHA = 0.7  # alpha, the share of the class token
    cfg.TRAINER.MMRL.REG_WEIGHT = 0.5  # lambda, the weight of the pulls toward frozen CLIP
    cfg.TRAINER.MMRL.PREC = "fp32"  # fp32, fp16, bf16 or amp


class RepresentationLearner(nn.Module):
    """The table of tokens, its maps to both towers' layers, and the projection of the image tokens."""

    ignored_keys = ("prompt_embeddings",)  # of the class texts, in released files

    def __init__(self, clip_model: clip.CLIP, options: CfgNode):
        super().__init__()
        tokens, dim, layers = options.N_REP_TOKENS, options.REP_DIM, len(options.REP_LAYERS)
        text_width, (width, embed_dim) = clip_model.text_projection.shape[0], clip_model.visual.proj.shape
        learner = self.representation_learner = nn.Module()
        learner.compound_rep_tokens = nn.Parameter(0.02 * torch.randn(tokens, dim))
        for side, out in (("v", width), ("t", text_width)):
            first = nn.Linear(dim, out)
            maps = nn.ModuleList(copy.deepcopy(first) for _ in range(layers))
            learner.add_module(f"compound_rep_tokens_r2{side}proj", maps)
        clip.add_parameter(self, "image_encoder.proj_rep", width**-0.5 * torch.randn(width, embed_dim))

    def tokens(self, side: str) -> list[Tensor]:
        """Return the tokens of each layer, (K, width), of the image ("v") or the text tower ("t")."""
        maps = self.representation_learner.get_submodule(f"compound_rep_tokens_r2{side}proj")
        return [project(self.representation_learner.compound_rep_tokens) for project in maps.children()]


class MMRLCLIP(PromptedCLIP):
    """CLIP with representation tokens in the upper layers of both towers."""

    frozen: Tensor  # (C, D), frozen CLIP's class features
    scale = 100  # of the logits, as released
    mixes = True  # whether the representation tokens take part in the logits outside of training

    def __init__(self, clip_model: clip.CLIP, texts: list[str], options: CfgNode):
        super().__init__(clip_model, len(texts))
        self.prompt_learner = RepresentationLearner(clip_model, options)
        self.first_layer, self.alpha = options.REP_LAYERS[0] - 1, options.ALPHA
        self.words = clip.FixedWords(clip_model, texts, below=self.first_layer)
        self.register_buffer("frozen", frozen_text_features(clip_model, texts), persistent=False)

    def class_features(self, classes: slice) -> Tensor:
        first, *deep = (x[None].to(self.clip.dtype) for x in self.prompt_learner.tokens("t"))
        inserted = clip.Segment(first, ("start", "inserted"), deep, self.first_layer, wanted=False)
        return clip.encode_fixed_words(self.clip, self.words, inserted=inserted, classes=classes)

    def features(self, images: Tensor, with_frozen: bool = False) -> list[Tensor]:
        """Return f and f_r of images (B, 3, H, W), each (B, D), and f_0, which runs with f below J and then alone."""
        first, *deep = self.prompt_learner.tokens("v")
        tower, segments = self.clip.visual, clip.image_segments(self.clip, images, first, deep, self.first_layer)
        image, tokens = segments["image"], first[None].to(self.clip.dtype)  # without ln_pre, in the first layer, too
        segments["prompts"] = replace(segments["prompts"], tokens=tokens, wanted=True)
        image.output = torch.zeros(1, 1, dtype=torch.long, device=image.tokens.device)
        branch = clip.add_frozen_image(segments, self.first_layer) if with_frozen else None
        x, proj = tower.transformer(segments, None, branch), self.prompt_learner.get_parameter("image_encoder.proj_rep")
        f_r = tower.ln_post(x.pop("prompts")).mean(dim=1).to(proj) @ proj
        f, *f_0 = (tower.project(each[:, 0]) for each in x.values())
        return [F.normalize(each.float(), dim=-1) for each in (f, f_r, *f_0)]

    def image_features(self, images: Tensor) -> Tensor:
        return self.features(images)[0]

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        f, f_r = self.features(images)
        mixed = self.alpha * f + (1 - self.alpha) * f_r if self.mixes else f
        return self.scale * mixed @ (self.text_features() if text is None else text).t()


@TRAINER_REGISTRY.register()
class MMRL(PromptTrainer):
    """Multi-modal representation learning: two cross-entropies and two pulls; tokens, maps, and P^r are trained."""

    model: MMRLCLIP
    config_node = "MMRL"
    static_step = True
    checkpoint_name = "MultiModalRepresentationLearner"
    has_fixed_texts = False

    def check_options(self, checks: Checks) -> None:
        checks.at_least(("N_REP_TOKENS", "REP_DIM"), 1)
        checks.at_least("REG_WEIGHT", 0)
        layers = self.options.REP_LAYERS
        consecutive = bool(layers) and layers == list(range(max(layers[0], 1), layers[0] + len(layers)))
        checks.holds("REP_LAYERS", consecutive, "consecutive numbers from 1")
        checks.holds("ALPHA", 0 <= self.options.ALPHA <= 1, "between 0 and 1")

    def check_sizes(self, checks: Checks, sizes: clip.BackboneConfig) -> None:
        last, most = max(self.options.REP_LAYERS, default=0), min(sizes.text_layers, sizes.vision_layers)
        checks.holds("REP_LAYERS", last <= most, f"at most {most}, the layers of both towers")

    def build_method(self, clip_model: clip.CLIP, classnames: list[str]) -> PromptedCLIP:
        model = MMRLCLIP(clip_model, self.class_texts(classnames), self.options)
        model.mixes = self.cfg.DATASET.SUBSAMPLE_CLASSES != "new" and classnames == (self.trained_on or classnames)
        return model

    def load_model(self, directory, epoch=None) -> int | None:
        self.model.mixes &= described_classes(directory) in (None, self.dm.dataset.classnames)
        return super().load_model(directory, epoch)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        model, options, alpha = self.model, self.options, self.options.ALPHA
        (f, f_r, f_0), text = model.features(images, with_frozen=True), model.text_features()
        logits, logits_r = model.scale * f @ text.t(), model.scale * f_r @ text.t()
        ce, ce_r = self.cross_entropy(logits, labels), self.cross_entropy(logits_r, labels)
        pull = distance(f, f_0) + distance(text, model.frozen)
        self.loss_parts = {"ce": ce.detach(), "ce_r": ce_r.detach(), "pull": pull.detach()}
        return alpha * ce + (1 - alpha) * ce_r + options.REG_WEIGHT * pull, alpha * logits + (1 - alpha) * logits_r
