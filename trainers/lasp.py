"""LASP: Bulat and Tzimiropoulos, LASP: Text-to-Text Optimization for Language-Aware Soft Prompting, arXiv 2210.01115.

CoOp, whose class features t_y must also classify frozen CLIP's features of L hand-written texts of each class, as if
these were images. With t_l,y the feature of text l of class y,

    P(y | t_l,y) = softmax_y(cos(t_y, t_l,y) / tau)
    L            = L_ce + alpha L_tt                    L_tt: the mean of -log P over all texts and classes

A learned vector w corrects the class features, t_y = (g(y) + w) / ||g(y) + w||, and the LayerNorms in the layers of the
image tower are trained, too. EXTRA_CLASSNAMES join L_tt without images; in the released code, they are the dataset's
other classes. As released, every other step, at random, adds noise, and the LayerNorms learn at a tenth of the rate.

Attention pattern: as CoOp.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, BackboneConfig, context_vectors
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.context import ContextCLIP, ContextTrainer
from trainers.prompted import PromptedCLIP, encode_texts

RELEASED_TEXTS = (
    "a photo of a {}, a type of flower.; a photo of a person doing {}.; a centered satellite photo of {}.; "
    "a photo of a {}, a type of aircraft.; {} texture.; itap of a {}.; a bad photo of the {}.; a origami {}.; "
    "a photo of the large {}.; a {} in a video game.; art of the {}.; a photo of the small {}.; a photo of a {}.; "
    "a photo of many {}.; a photo of the hard to see {}.; a low resolution photo of the {}.; a rendering of a {}.; "
    "a bad photo of the {}.; a cropped photo of the {}.; a pixelated photo of the {}.; a bright photo of the {}.; "
    "a cropped photo of a {}.; a photo of the {}.; a good photo of the {}.; a rendering of the {}.; "
    "a close-up photo of the {}.; a low resolution photo of a {}.; a rendition of the {}.; a photo of the clean {}.; "
    "a photo of a large {}.; a blurry photo of a {}.; a pixelated photo of a {}.; itap of the {}.; "
    "a jpeg corrupted photo of the {}.; a good photo of a {}."
).split("; ")


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.LASP."""
    cfg.TRAINER.LASP = CfgNode()
    cfg.TRAINER.LASP.N_CTX = 4  # M, the number of context vectors
    cfg.TRAINER.LASP.CTX_INIT = "a photo of a"  # words to start from; their number replaces N_CTX
    cfg.TRAINER.LASP.LASP_LOSS_WEIGHT = 5.0  # alpha, the weight of the text-to-text loss
    cfg.TRAINER.LASP.LASP_PROMPTS = []  # the L hand-written texts, with {} for the class name; empty: those released
    cfg.TRAINER.LASP.NOISE = 0.05  # standard deviation of the noise on their features
    cfg.TRAINER.LASP.EXTRA_CLASSNAMES = []  # classes without images that join the text-to-text loss
    cfg.TRAINER.LASP.INCLUDE_ALL_CLASSES = False  # they also compete with the classes of the images in L_ce
    cfg.TRAINER.LASP.FINETUNE_VIT_LN = True  # train the LayerNorms of the image tower's layers
    cfg.TRAINER.LASP.PREC = "fp32"  # fp32, fp16, bf16 or amp


class PromptLearner(nn.Module):
    """The context `ctx` (M, text width), the correction `w` (1, D), and the image tower's LayerNorms if trained."""

    # Released files hold the text tower under this name, and tensors of the class texts.
    ignored_keys = ("text_encoder.module", "token_prefix_all", "token_suffix_all", "class_text_features")

    def __init__(self, clip_model: CLIP, ctx: nn.Parameter, train_norms: bool):
        super().__init__()
        self.ctx, self.w = ctx, nn.Parameter(torch.zeros(1, clip_model.text_projection.shape[1]))
        if train_norms:
            norms = [{"ln_1": block.ln_1, "ln_2": block.ln_2} for block in clip_model.visual.transformer.blocks]
            layers = nn.ModuleList(nn.ModuleDict(of_layer) for of_layer in norms).float().requires_grad_(True)
            self.image_encoder = nn.ModuleDict({"transformer": nn.ModuleDict({"resblocks": layers})})


class LASPCLIP(ContextCLIP):
    """CLIP with a learned context and correction. The first `n_trained` of its classes have images."""

    frozen: Tensor  # features of the hand-written texts, (C, L, D)

    def __init__(self, clip_model: CLIP, names: list[str], texts: list[list[str]], n_trained: int, options: CfgNode):
        ctx = context_vectors(clip_model, options.CTX_INIT, (options.N_CTX,))
        super().__init__(clip_model, names, options, ctx)
        self.prompt_learner = PromptLearner(clip_model, ctx, options.FINETUNE_VIT_LN)
        self.frozen_image_encoder = not options.FINETUNE_VIT_LN
        self.n_trained, self.noise = n_trained, options.NOISE
        frozen = torch.stack(encode_texts(clip_model, texts))
        self.register_buffer("frozen", F.normalize(frozen, dim=-1), persistent=False)

    def class_features(self, classes: slice) -> Tensor:
        return F.normalize(self.projected_features(classes) + self.prompt_learner.w, dim=-1)

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        return super().forward(images, text)[:, : self.n_trained]

    def text_to_text(self, text: Tensor) -> Tensor:
        """Return L_tt of the class features (C, D)."""
        switch = torch.rand((), device=text.device) < 0.5
        frozen = self.frozen + self.noise * switch * torch.randn_like(self.frozen)
        labels = torch.arange(len(text), device=text.device).repeat_interleave(frozen.shape[1])
        return F.cross_entropy(self.logits(frozen.flatten(0, 1), text).float(), labels)


@TRAINER_REGISTRY.register()
class LASP(ContextTrainer):
    """Text-to-text optimization: two cross-entropies; the context, the correction, and the LayerNorms are trained."""

    model: LASPCLIP
    config_node = "LASP"
    static_step = True

    def check_options(self, checks: Checks) -> None:
        super().check_options(checks)
        checks.at_least(("LASP_LOSS_WEIGHT", "NOISE"), 0)
        checks.holds("LASP_PROMPTS", all("{}" in text for text in self.options.LASP_PROMPTS), "texts with {} in them")
        train, include = self.cfg.TRAIN, self.options.INCLUDE_ALL_CLASSES
        right = not include or (train.CLASS_WEIGHTS == "none" and train.MIXUP == train.CUTMIX == 0)
        checks.holds("INCLUDE_ALL_CLASSES", right, "False with TRAIN.CLASS_WEIGHTS, MIXUP, or CUTMIX")

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        super().check_sizes(checks, sizes)
        if self.options.FINETUNE_VIT_LN:
            _ = sizes.vision_layers  # raises a UserError for a ResNet

    def fixed_texts(self, classnames: list[str]) -> list[list[str]]:
        texts = self.options.LASP_PROMPTS or RELEASED_TEXTS
        return [[text.replace("{}", name) for text in texts] for name in classnames]

    def with_extra(self, classnames: list[str]) -> list[str]:
        """Append the extra classes to those of the images."""
        extra = self.names_in_texts(self.options.EXTRA_CLASSNAMES)
        return classnames + [name for name in extra if name not in classnames]

    def texts(self, classnames: list[str]) -> Iterator[tuple[str, str, int]]:
        yield from PromptTrainer.texts(self, self.with_extra(classnames))
        yield from super().texts(self.with_extra(classnames))

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        names = self.with_extra(classnames)
        return LASPCLIP(clip_model, names, self.fixed_texts(names), len(classnames), self.options)

    def parameter_groups(self, learner: nn.Module) -> list[dict] | None:
        norms = [p for name, p in learner.named_parameters() if name.startswith("image_encoder.")]
        return [{"params": [learner.ctx, learner.w]}, {"params": norms, "lr": 0.1 * self.cfg.OPTIM.LR}]

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        model, text = self.model, self.model.text_features()
        logits = model.logits(model.image_features(images), text)
        ce = self.cross_entropy(logits if self.options.INCLUDE_ALL_CLASSES else logits[:, : model.n_trained], labels)
        tt = self.options.LASP_LOSS_WEIGHT * model.text_to_text(text)
        self.loss_parts = {"ce": ce.detach(), "tt": tt.detach()}
        return ce + tt, logits[:, : model.n_trained]
