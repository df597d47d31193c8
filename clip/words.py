"""The texts of the classes around a learned context, and fixed ones as a KV cache.

A text is `[SOS] context name . [EOS]`, where part of the context may follow the name. The tokens before the name are
the same for all classes, so they form a segment that runs once. The tokens from the name on differ in number: those of
all classes, sorted by length, are packed into one segment without padding (`clip.ragged`).
"""

from __future__ import annotations

from itertools import groupby
from os.path import commonprefix

import torch
from torch import Tensor, nn

from basics import UserError

from .attention import Packing, Segment
from .kv_cache import KVCache
from .tokenizer import encode, tokenize
from .towers import CLIP, end_of_text

TEXTS_AT_ONCE = 1024  # without gradients; enough to keep any device busy


class ClassWords(nn.Module):
    """The texts of all classes without their context.

    Args:
        classnames: C names.
        n_ctx: M, the number of context vectors.
        before: how many of them precede the name (default: all); the others follow it.
        at_least: the fewest positions kept after the context, even if a text is shorter.
        ending: what follows each name.

    Attributes:
        start: [SOS], (1, 1, text width).
        words: "name . [EOS]" of each class, (C, n, text width).

    Raises:
        UserError: a text with its context exceeds the backbone's context length.
    """

    start: Tensor
    words: Tensor
    positions: Tensor

    def __init__(
        self,
        clip_model: CLIP,
        classnames: list[str],
        n_ctx: int,
        before: int | None = None,
        at_least: int = 0,
        ending: str = ".",
    ):
        super().__init__()
        self.before = n_ctx if before is None else before
        self.after, room = n_ctx - self.before, clip_model.context_length - n_ctx
        needed = max(4, 1 + at_least)  # start, a name of one token, the period, end
        if room < needed:
            raise UserError(
                f"context vectors: expected at most {clip_model.context_length - needed} (the backbone has "
                f"{clip_model.context_length} positions, and the other tokens need {needed}), got {n_ctx}. Use fewer."
            )
        tokens = tokenize([f"{name}{ending}" for name in classnames], room)
        self.texts = end_of_text(tokens).tolist()  # tokens of "name . [EOS]"
        self.lengths = [max(n, at_least) for n in self.texts]
        # The period may share a token with the end of a name, so names are counted without it.
        self.names = [len(encode(name)) for name in classnames] if self.after else self.lengths
        device = clip_model.logit_scale.device
        with torch.no_grad():
            words = clip_model.token_embedding(tokens[:, : max(self.lengths) + 1].to(device))
        self.register_buffer("start", words[:1, :1], persistent=False)
        self.register_buffer("words", words[:, 1:], persistent=False)
        self.register_buffer("positions", clip_model.positional_embedding.detach(), persistent=False)
        self._packed: dict[tuple[int, int], PackedWords] = {}

    def packed(self, classes: slice = slice(None)) -> PackedWords:
        """Return the packed texts of some classes (default: all)."""
        first, last, _ = classes.indices(len(self.words))
        if (first, last) not in self._packed:
            self._packed[first, last] = PackedWords(self, first, last)
        return self._packed[first, last]


class FixedWords(ClassWords):
    """The texts of all classes without learned context. The words that all of them begin with run once.

    Args:
        texts: of C classes.
        below: number of lower layers that nothing trained reaches. They run here, once, and not in each step.

    Attributes:
        shared: the embeddings of the shared words, (n, text width).
        entering_start: [SOS] and the shared words as they enter the layer `below`, (1, 1 + n, text width).
        entering_rest: the rest of each text as it enters that layer, padded: (C, longest, text width).
    """

    shared: Tensor
    entering_start: Tensor
    entering_rest: Tensor

    def __init__(self, clip_model: CLIP, texts: list[str], below: int = 0):
        beginning = commonprefix(texts).rpartition(" ")[0]
        tokens = encode(beginning)
        super().__init__(clip_model, [text[len(beginning) :] for text in texts], len(tokens), ending="")
        self.below = below
        with torch.no_grad():
            embeddings = clip_model.token_embedding(torch.tensor(tokens, dtype=torch.long, device=self.words.device))
        self.register_buffer("shared", embeddings, persistent=False)
        if below:
            self._run_below(clip_model)

    def segments(self, dtype: torch.dtype, classes: slice = slice(None), below: int = 0) -> dict[str, Segment]:
        """Return the texts of some classes as they enter the layer `below`, 0 or `self.below`.

        Returns:
            {"start": [SOS] and the shared words, "rest": the packed rest of each text}.
        """
        packed = self.packed(classes)
        if below:
            start, rest = self.entering_start, packed.pack(self.entering_rest[classes])
        else:
            start, rest = packed.embed(self.shared[None])
        return {
            "start": Segment(start.to(dtype), ("start",), first_layer=below, wanted=False),
            "rest": Segment(
                rest.to(dtype), ("start", "rest"), first_layer=below, output=packed.end, packing=packed.packing
            ),
        }

    def _run_below(self, clip_model: CLIP) -> None:
        """Set `entering_start` and `entering_rest`, in blocks of classes that fit into memory."""
        n, longest, width = self.words.shape
        entering = self.words.new_zeros(n, longest, width, dtype=clip_model.dtype)
        for first in range(0, n, TEXTS_AT_ONCE):
            classes = slice(first, min(first + TEXTS_AT_ONCE, n))
            packed = self.packed(classes)
            tokens = clip_model.transformer.run_below(self.below, self.segments(clip_model.dtype, classes))
            packed.unpack(tokens["rest"], entering[classes])
        self.register_buffer("entering_start", tokens["start"], persistent=False)
        self.register_buffer("entering_rest", entering, persistent=False)


class CachedWords(nn.Module):
    """Fixed texts that attend to nothing trained, as a KV cache, each up to its end-of-text token.

    Args:
        texts: of C classes.
        memory_limit: the largest cache of all classes that is kept, in GiB. A larger one is computed for each use.
        is_used: whether to compute it now.

    Attributes:
        end_token: the number of the end-of-text token.
        kept: the cache of all classes; None if it is not kept.
    """

    tokens: Tensor

    def __init__(self, clip_model: CLIP, texts: list[str], memory_limit: float, is_used: bool = True):
        super().__init__()
        tokens = tokenize(texts, clip_model.context_length).to(clip_model.logit_scale.device)
        self.register_buffer("tokens", tokens, persistent=False)
        self.end_token = int(tokens.max())
        size = clip_model.transformer.cache_bytes(len(tokens) * int(end_of_text(tokens).max() + 1))
        fits = size <= memory_limit * 2**30
        self.kept = self._prefill(clip_model, slice(None)) if fits and is_used else None

    def cache(self, clip_model: CLIP, classes: slice = slice(None)) -> KVCache:
        """Return the cache of some classes; its segment is "words"."""
        return self._prefill(clip_model, classes) if self.kept is None else self.kept.batch_slice(classes)

    @torch.no_grad()
    def _prefill(self, clip_model: CLIP, classes: slice) -> KVCache:
        words, end = clip_model.embed_text(self.tokens[classes])
        return clip_model.transformer.prefill({"words": Segment(words, attends_to=("words",), lengths=end + 1)})


class PackedWords:
    """The texts of the classes first to last - 1 from the name on, sorted by length: one row per class.

    Attributes:
        packing: for `Segment`.
        end: position of each row's [EOS] among all packed tokens, (C,) int.
        class_of_row: the class of each row, counted from `first`, (C,) int.
        row_of_class: the row of each class, (C,) int.
    """

    def __init__(self, words: ClassWords, first: int, last: int):
        self.words, self.classes = words, slice(first, last)
        after, width, device = words.after, words.words.shape[1], words.words.device
        order = sorted(range(last - first), key=lambda i: words.lengths[first + i])
        lengths = [words.lengths[first + i] + after for i in order]
        self.packing: Packing = tuple((len(list(group)), length) for length, group in groupby(lengths))
        # Where each packed token comes from: a row of the table in `embed` holds "name . [EOS]", and then the context
        # vectors that follow the name.
        source: list[int] = []
        position: list[int] = []  # in its row
        end: list[int] = []
        for row, (i, length) in enumerate(zip(order, lengths, strict=True)):
            name, text = words.names[first + i], words.lengths[first + i]
            columns = [*range(name), *range(width, width + after), *range(name, text)] if after else range(text)
            source += [row * (width + after) + column for column in columns]
            end.append(len(position) + words.texts[first + i] + after - 1)
            position += range(length)
        self.source, self.position = torch.tensor(source, device=device), torch.tensor(position, device=device)
        self.end, self.class_of_row = torch.tensor(end, device=device), torch.tensor(order, device=device)
        self.row_of_class = self.class_of_row.argsort()

    def embed(self, ctx: Tensor) -> tuple[Tensor, Tensor]:
        """Embed the texts with a context; positions are added.

        Args:
            ctx: (N, M, text width). N is 1 for a context of all classes, or C in the order of `class_of_row`. If all of
                the context precedes the name, (N, M) may be any shape.

        Returns:
            `[SOS] context` (N, 1 + before, text width), and the packed rows `name context . [EOS]`, (n, text width).
        """
        words, before = self.words, self.words.before
        start = torch.cat([words.start.expand(ctx.shape[0], -1, -1), ctx[:, :before]], dim=1)
        table, split = words.words[self.classes][self.class_of_row], start.shape[1]
        if words.after:
            table = torch.cat([table, ctx[:, before:].expand(len(table), -1, -1)], dim=1)
        rest = table.flatten(0, 1).index_select(0, self.source)
        return start + words.positions[:split], rest + words.positions[split + self.position]

    def pack(self, table: Tensor) -> Tensor:
        """Pack tokens of fixed texts, padded, (C, longest, text width): (n, text width)."""
        return table[self.class_of_row].flatten(0, 1).index_select(0, self.source)

    def unpack(self, tokens: Tensor, table: Tensor) -> None:
        """Copy packed tokens (n, text width) of fixed texts to the padded table that `pack` takes."""
        longest = table.shape[1]
        index = self.class_of_row[self.source // longest] * longest + self.source % longest
        table.flatten(0, 1).index_copy_(0, index, tokens)
