"""What the methods with a learned context in their class texts share: the texts, the size checks, the encoding.

A class text is `[SOS] context words name . [EOS]`: M learned vectors, and possibly words that stay fixed.
Letters: B images, C classes, D the shared embedding's width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from clip import CLIP, BackboneConfig, Segment, encode, split_words
from clip.words import PackedWords
from dassl.config import Checks
from trainers.base import PromptTrainer


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

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        self.check_room(checks, sizes, self.n_context())

    def texts(self, classnames: list[str]) -> Iterator[tuple[str, str, int]]:
        n_ctx = self.n_context()
        names = fixed_words_and_names(classnames, self.options.CTX_INIT, n_ctx) if self.splits_words else classnames
        yield from ((name, f"{words}.", n_ctx) for name, words in zip(classnames, names, strict=True))


def fixed_words_and_names(classnames: list[str], words: str, n_ctx: int) -> list[str]:
    """Return each class name after the words that stay fixed when n_ctx vectors replace the first tokens of `words`."""
    fixed = split_words(words, n_ctx)[1]
    return [f"{fixed} {name}" for name in classnames]


def encode_around_context(clip_model: CLIP, packed: PackedWords, start: Tensor, rest: Tensor) -> Tensor:
    """Encode texts as unit-length features (*batch, C, D). `start` attends to itself, the rest to both, causally.

    Args:
        packed: the texts of C classes.
        start: `[SOS]` and the context before the name, (*batch, N, tokens, text width); N is 1 if all classes share it.
        rest: the packed remainder of the texts, (tokens, text width).
    """
    dtype = clip_model.dtype
    segments = {
        "start": Segment(start.to(dtype), attends_to=("start",), wanted=False),
        "rest": Segment(rest.to(dtype), attends_to=("start", "rest"), output=packed.end, packing=packed.packing),
    }
    x = clip_model.transformer(segments)["rest"]
    return F.normalize(clip_model.project_text(x).float(), dim=-1)[..., packed.row_of_class, :]
