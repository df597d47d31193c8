"""What the methods with a learned context in their class texts share: CoOp's model, the size checks, the encoding.

A class text is `[SOS] context words name . [EOS]`: M learned vectors, and possibly words that stay fixed.
Symbols: B images, C classes, D the width of the shared embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, BackboneConfig, ClassWords, Segment, context_vectors, encode, split_words
from clip.words import PackedWords
from dassl.config import Checks
from trainers.base import PromptTrainer
from trainers.prompted import PromptedCLIP, frozen_text_features

POSITIONS = {"end": lambda m: m, "middle": lambda m: m // 2, "front": lambda m: 0}  # context vectors before the name


class PromptLearner(nn.Module):
    """The context: `ctx` (M, text width), or (C, M, text width) with CSC."""

    def __init__(self, ctx: nn.Parameter):
        super().__init__()
        self.ctx = ctx


class ContextCLIP(PromptedCLIP):
    """CLIP with a learned context in the class texts, as trainers/coop.py describes it.

    Args:
        ctx: the initial context; None for the one that the options describe.
    """

    frozen_image_encoder = True

    def __init__(self, clip_model: CLIP, classnames: list[str], options: CfgNode, ctx: nn.Parameter | None = None):
        super().__init__(clip_model, len(classnames))
        if ctx is None:
            shape = (len(classnames), options.N_CTX) if options.CSC else (options.N_CTX,)
            ctx = context_vectors(clip_model, options.CTX_INIT, shape)
        self.prompt_learner = PromptLearner(ctx)
        n_ctx = self.prompt_learner.ctx.shape[-2]  # M
        self.per_class_parameters = self.prompt_learner.ctx.dim() == 3
        before = POSITIONS[options.get("CLASS_TOKEN_POSITION", "end")](n_ctx)
        self.words = ClassWords(clip_model, classnames, n_ctx, before)

    def projected_features(self, classes: slice) -> Tensor:
        """Return text features of some classes as the tower projects them: (C, D), not normalized."""
        ctx, packed = self.prompt_learner.ctx, self.words.packed(classes)
        start, rest = packed.embed(ctx[classes][packed.class_of_row] if self.per_class_parameters else ctx[None])
        return encode_around_context(self.clip, packed, start, rest, normalize=False)

    def class_features(self, classes: slice) -> Tensor:
        return F.normalize(self.projected_features(classes), dim=-1)


class GuidedContextCLIP(ContextCLIP):
    """CLIP with a learned context, and frozen CLIP's features of hand-written texts, `frozen` (C, D), to compare."""

    frozen: Tensor

    def __init__(
        self,
        clip_model: CLIP,
        classnames: list[str],
        texts: Sequence[str | Sequence[str]],
        options: CfgNode,
        ctx: nn.Parameter | None = None,
    ):
        super().__init__(clip_model, classnames, options, ctx)
        self.register_buffer("frozen", frozen_text_features(clip_model, texts), persistent=False)


class ContextTrainer(PromptTrainer):
    """Trains a context of M vectors in the class texts; CTX_INIT holds the words it starts from.

    Attributes:
        n_ctx_key: the setting that holds M.
        splits_words: whether M vectors replace the first M tokens of CTX_INIT and its other words stay fixed (MaPLe).
            Otherwise all of its words are learned, and their number of tokens replaces M.
    """

    n_ctx_key = "N_CTX"
    splits_words = False
    has_fixed_texts = False

    def n_context(self) -> int:
        """Return M, the number of context vectors."""
        n_ctx = self.options[self.n_ctx_key]
        return n_ctx if self.splits_words else len(encode(self.options.CTX_INIT.replace("_", " "))) or n_ctx

    def check_options(self, checks: Checks) -> None:
        checks.at_least(self.n_ctx_key, 1)
        if "CLASS_TOKEN_POSITION" in self.options:
            checks.one_of("CLASS_TOKEN_POSITION", POSITIONS)

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        self.check_room(checks, sizes, self.n_context())

    def has_context(self) -> bool:
        """Return whether the class texts have learned vectors with these settings."""
        return True

    def fixed_words(self, classnames: list[str]) -> list[str]:
        """Return what stays fixed in the text of each class with its context."""
        n_ctx = self.n_context()
        names = fixed_words_and_names(classnames, self.options.CTX_INIT, n_ctx) if self.splits_words else classnames
        return [f"{name}." for name in names]

    def texts(self, classnames: list[str]) -> Iterator[tuple[str, str, int]]:
        if self.has_fixed_texts:
            yield from super().texts(classnames)
        if self.has_context():
            yield from zip(classnames, self.fixed_words(classnames), repeat(self.n_context()), strict=False)


class GuidedContextTrainer(ContextTrainer):
    """Trains a context next to frozen CLIP's features of hand-written texts (KgCoOp, ProGrad)."""

    model: GuidedContextCLIP
    has_fixed_texts = True


def fixed_words_and_names(classnames: list[str], words: str, n_ctx: int) -> list[str]:
    """Return each class name after the words that stay fixed when n_ctx vectors replace the first tokens of `words`."""
    fixed = split_words(words, n_ctx)[1]
    return [f"{fixed} {name}" for name in classnames]


def encode_around_context(
    clip_model: CLIP, packed: PackedWords, start: Tensor, rest: Tensor, normalize: bool = True
) -> Tensor:
    """Encode texts as unit-length features (*batch, C, D). `start` attends to itself, the rest to both, causally.

    Args:
        packed: the texts of C classes.
        start: `[SOS]` and the context before the name, (*batch, N, tokens, text width); N is 1 if all classes share it.
        rest: the packed remainder of the texts, (tokens, text width).
        normalize: False for features as the tower projects them.
    """
    dtype = clip_model.dtype
    segments = {
        "start": Segment(start.to(dtype), attends_to=("start",), wanted=False),
        "rest": Segment(rest.to(dtype), attends_to=("start", "rest"), output=packed.end, packing=packed.packing),
    }
    x = clip_model.transformer(segments)["rest"]
    features = clip_model.project_text(x).float()[..., packed.row_of_class, :]
    return F.normalize(features, dim=-1) if normalize else features
