"""The texts of the classes around a learned context.

A text is `[SOS] context name . [EOS]`; part of the context may stand behind the name. What stands before the name is
the same for all classes, so it is a segment of its own that runs once. What stands behind has as many tokens as the
class needs: the rows of all classes, sorted by length, stand one behind the other (`Segment.packing`).
"""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor, nn

from basics import UserError

from .attention import Packing
from .tokenizer import encode, tokenize
from .towers import CLIP, end_of_text


class ClassWords(nn.Module):
    """The texts of all classes without their context.

    Args:
        classnames: C names.
        n_ctx: M, the number of context vectors.
        before: how many of them stand before the name (default: all), the others stand behind it.
        at_least: positions kept behind the context even if a text ends before.

    Attributes:
        start: [SOS], (1, 1, text width).
        words: "name . [EOS]" of each class, (C, n, text width).

    Raises:
        UserError: a text with its context is longer than the backbone's.
    """

    def __init__(
        self, clip_model: CLIP, classnames: list[str], n_ctx: int, before: int | None = None, at_least: int = 0
    ):
        super().__init__()
        self.before = n_ctx if before is None else before
        self.behind, room = n_ctx - self.before, clip_model.context_length - n_ctx
        if room < max(4, 1 + at_least):  # start, a name of one token, the full stop, end
            raise UserError(
                f"{n_ctx} context vectors overrun the context: the backbone has {clip_model.context_length} positions, "
                f"of which {max(4, 1 + at_least)} must be left to the start and the tokens behind the context"
            )
        tokens = tokenize([f"{name}." for name in classnames], room)
        self.texts = end_of_text(tokens).tolist()  # tokens of "name . [EOS]"
        self.lengths = [max(n, at_least) for n in self.texts]
        # The full stop may be one token with a name's last sign, so that names are counted without it.
        self.names = [len(encode(name)) for name in classnames] if self.behind else self.lengths
        device = clip_model.logit_scale.device
        with torch.no_grad():
            words = clip_model.token_embedding(tokens[:, : max(self.lengths) + 1].to(device))
        for name, value in {
            "start": words[:1, :1],
            "words": words[:, 1:],
            "positions": clip_model.positional_embedding.detach(),
        }.items():
            self.register_buffer(name, value, persistent=False)
        self._rows: dict[tuple[int, int], ClassRows] = {}

    def rows(self, classes: slice = slice(None)) -> ClassRows:
        """The rows of some classes, one behind the other (default: all classes)."""
        first, last, _ = classes.indices(len(self.words))
        if (first, last) not in self._rows:
            self._rows[first, last] = ClassRows(self, first, last)
        return self._rows[first, last]


class ClassRows:
    """The rows of the classes first to last - 1, sorted by length: all that stands behind the part they share.

    Attributes:
        packing: as `Segment` wants them.
        end: where the [EOS] of each row stands, (C,) int.
        order: which class a row belongs to, counted from `first`, (C,) int.
        back: the row of each class, (C,) int.
    """

    packing: Packing

    def __init__(self, words: ClassWords, first: int, last: int):
        self.all, self.classes = words, slice(first, last)
        behind, width, device = words.behind, words.words.shape[1], words.words.device
        order = sorted(range(last - first), key=lambda i: words.lengths[first + i])
        lengths = [words.lengths[first + i] + behind for i in order]
        self.packing = tuple((len(list(group)), length) for length, group in groupby(lengths))
        # Where each token comes from: a row of the bank holds "name . [EOS]", then the context that stands behind.
        source, place, ends = [], [], []
        for row, (i, length) in enumerate(zip(order, lengths, strict=True)):
            name, text = words.names[first + i], words.lengths[first + i]
            columns = [*range(name), *range(width, width + behind), *range(name, text)] if behind else range(text)
            source += [row * (width + behind) + column for column in columns]
            ends.append(len(place) + words.texts[first + i] + behind - 1)
            place += range(length)
        as_tensor = {"source": source, "place": place, "end": ends, "order": order}
        for name, value in as_tensor.items():
            setattr(self, name, torch.tensor(value, device=device))
        self.back = self.order.argsort()

    def around(self, ctx: Tensor) -> tuple[Tensor, Tensor]:
        """The embedded texts, with positions.

        Args:
            ctx: (N, M, text width). N is 1 for a context of all classes, or that of `order`; if all of it stands before
                the name it may be any batch.

        Returns:
            `[SOS] context-before` (N, 1 + before, text width), and all rows `name context-behind . [EOS]`, one behind
            the other, (n, text width).
        """
        words, before = self.all, self.all.before
        start = torch.cat([words.start.expand(len(ctx), -1, -1), ctx[:, :before]], dim=1)
        bank, split = words.words[self.classes][self.order], start.shape[1]
        if words.behind:
            bank = torch.cat([bank, ctx[:, before:].expand(len(bank), -1, -1)], dim=1)
        rest = bank.flatten(0, 1).index_select(0, self.source)
        return start + words.positions[:split], rest + words.positions[split + self.place]
