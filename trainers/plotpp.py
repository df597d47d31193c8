"""PLOT++: Chen et al., PLOT: Prompt Learning with Optimal Transport for Vision-Language Models, 2210.01253.

N contexts give N features G_c of a class, and M sets of image prompts M features F of an image. Their similarity is
that under the optimal transport plan between the two sets (section 3.3):

    T = argmin <T, 1 - F G_c'> - eps h(T), with sums 1/M along rows and 1/N along columns    (eq. 4)
    p(y = c | x) = softmax_c(<T, F G_c'> / tau)                                              (eq. 6)

The plan comes from Sinkhorn's iterations (eq. 5), without gradient. PLOT++ is the released successor of the paper's
PLOT, which matches the patches of a ResNet. TRADE_OFF adds the logits of the mean features. The released code stops the
iterations when the mean change over all pairs of a batch is small; here each pair of image and class stops by itself,
so that a prediction does not depend on the other images and classes.

Attention pattern: each context as CoOp's; [CLS, patches] and one set of image prompts attend to each other, as in VPT.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, BackboneConfig, ClassWords, context_vectors, encode, encode_image, image_segments
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.context import encode_around_context
from trainers.prompted import PromptedCLIP

EPSILON, ITERATIONS, THRESHOLD = 0.1, 100, 0.01  # of Sinkhorn's iterations, as released


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.PLOTPP."""
    cfg.TRAINER.PLOTPP = CfgNode()
    cfg.TRAINER.PLOTPP.M = 4  # M, the number of sets of image prompts
    cfg.TRAINER.PLOTPP.N_CTX_V = 2  # the prompts in a set
    cfg.TRAINER.PLOTPP.CTX_INIT = [  # the words that the N contexts start from; equally many tokens each
        "a photo of a",
        "this is a photo",
        "this is picture of",
        "one picture of a",
    ]
    cfg.TRAINER.PLOTPP.MODEL_UPD = "joint"  # what is trained: joint, or only the image prompts (vision)
    cfg.TRAINER.PLOTPP.TRADE_OFF = False  # add the logits of the mean features
    cfg.TRAINER.PLOTPP.PREC = "fp32"  # fp32, fp16, bf16 or amp


@torch.no_grad()
def transport_plan(similarity: Tensor) -> Tensor:
    """Return the plan between two sets with equal weights, from their similarities (..., M, N), by Sinkhorn (eq. 5)."""
    kernel = ((similarity - 1) / EPSILON).exp()
    m, n = kernel.shape[-2:]
    rows, columns = torch.ones_like(kernel[..., :1]), torch.ones_like(kernel[..., :1, :])
    moving = torch.ones_like(rows[..., :1, :], dtype=torch.bool)
    for _ in range(ITERATIONS):
        new_rows = 1 / m / (kernel * columns).sum(dim=-1, keepdim=True)
        new_columns = 1 / n / (kernel * new_rows).sum(dim=-2, keepdim=True)
        change = (new_rows - rows).abs().mean(dim=-2, keepdim=True)
        rows, columns = torch.where(moving, new_rows, rows), torch.where(moving, new_columns, columns)
        moving = moving & (change >= THRESHOLD)
        if not moving.any():
            break
    return rows * kernel * columns


class PromptLearner(nn.Module):
    """N contexts `ctx` (N, tokens, text width) and M sets of image prompts `ctx_vision` (M, N_CTX_V, vision width)."""

    def __init__(self, clip_model: CLIP, options: CfgNode):
        super().__init__()
        starts = [context_vectors(clip_model, words, (n_context(words),)).detach() for words in options.CTX_INIT]
        self.ctx = nn.Parameter(torch.stack(starts), requires_grad=options.MODEL_UPD == "joint")
        width = clip_model.visual.proj.shape[0]
        self.ctx_vision = nn.Parameter(0.02 * torch.randn(options.M, options.N_CTX_V, width))


def n_context(words: str) -> int:
    """Return the number of tokens of a context's words."""
    return len(encode(words.replace("_", " ")))


class PLOTPPCLIP(PromptedCLIP):
    """CLIP with sets of contexts and of image prompts. Features are not normalized before their means are taken."""

    def __init__(self, clip_model: CLIP, classnames: list[str], options: CfgNode):
        super().__init__(clip_model, len(classnames))
        self.prompt_learner = PromptLearner(clip_model, options)
        self.words = ClassWords(clip_model, classnames, self.prompt_learner.ctx.shape[1])
        self.trade_off = options.TRADE_OFF

    def class_features(self, classes: slice) -> Tensor:
        """Return the features G of some classes: (C, N, D)."""
        packed = self.words.packed(classes)
        start, rest = packed.embed(self.prompt_learner.ctx)
        return encode_around_context(self.clip, packed, start[:, None], rest, normalize=False).transpose(0, 1)

    def image_features(self, images: Tensor) -> Tensor:
        """Return the features F of images (B, 3, H, W): (B, M, D)."""
        prompts = self.prompt_learner.ctx_vision[:, None]
        return encode_image(self.clip, image_segments(self.clip, images, prompts), normalize=False).transpose(0, 1)

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        scale = self.clip.logit_scale.exp()
        similarity = torch.einsum("bmd,cnd->bcmn", F.normalize(image, dim=-1), F.normalize(text, dim=-1))
        logits = scale * (transport_plan(similarity) * similarity).sum(dim=(-2, -1))
        if not self.trade_off:
            return logits
        return logits + scale * F.normalize(image.mean(dim=1), dim=-1) @ F.normalize(text.mean(dim=1), dim=-1).t()


@TRAINER_REGISTRY.register()
class PLOTPP(PromptTrainer):
    """Prompt learning with optimal transport: cross-entropy; image prompts are trained, and contexts if joint."""

    model: PLOTPPCLIP
    config_node = "PLOTPP"
    has_fixed_texts = False
    fixed_text: Tensor | None = None  # the class features while only the image prompts are trained

    def check_options(self, checks: Checks) -> None:
        checks.one_of("MODEL_UPD", ("joint", "vision"))
        checks.at_least(("M", "N_CTX_V"), 1)
        lengths = {n_context(words) for words in self.options.CTX_INIT}
        checks.holds("CTX_INIT", len(lengths) == 1 and 0 not in lengths, "texts with equally many tokens")

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        self.check_room(checks, sizes, max(map(n_context, self.options.CTX_INIT), default=0))
        _ = sizes.vision_layers  # raises a UserError for a ResNet

    def texts(self, classnames: list[str]) -> Iterator[tuple[str, str, int]]:
        yield from ((name, f"{name}.", n_context(self.options.CTX_INIT[0])) for name in classnames)

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return PLOTPPCLIP(clip_model, classnames, self.options)

    def before_train(self) -> None:
        super().before_train()
        if self.options.MODEL_UPD == "vision":
            with torch.no_grad(), torch.autocast(self.device.type, enabled=self.precision == "amp"):
                self.fixed_text = self.model.text_features()

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(images, self.fixed_text)
        return self.cross_entropy(logits, labels), logits
