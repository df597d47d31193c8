"""CLIP's byte-pair encoding, from open_clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from basics import UserError

VOCABULARY = 49408  # tokens; the last two are the start and the end of a text


@cache
def simple_tokenizer():
    """Return open_clip's tokenizer, created once because it reads the merge table."""
    from open_clip.tokenizer import SimpleTokenizer  # here, because importing open_clip takes seconds

    return SimpleTokenizer()


def encode(text: str) -> list[int]:
    """Return the token numbers of a text, without start and end tokens."""
    return simple_tokenizer().encode(text)


def decode(tokens: list[int]) -> str:
    """Return the text of token numbers, without start and end tokens."""
    return simple_tokenizer().decode(tokens).strip()


def tokenize(texts: str | Sequence[str], context_length: int = 77, truncate: bool = False) -> Tensor:
    """Return token numbers between start and end tokens, padded with zeros.

    Args:
        texts: one text or N of them.
        context_length: row length of the result; 77 for every CLIP that OpenAI released.
        truncate: shorten a text that is too long, keeping its end token, instead of raising an error.

    Returns:
        (N, context_length) int64.

    Raises:
        UserError: a text is too long, and `truncate` is False.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    start, end = simple_tokenizer().sot_token_id, simple_tokenizer().eot_token_id
    rows = torch.zeros(len(texts), context_length, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        numbers = [start, *encode(text), end]
        if len(numbers) > context_length:
            if not truncate:
                raise UserError(
                    f"text {text[:80]!r}: expected at most {context_length} tokens, got {len(numbers)}. Shorten it."
                )
            numbers = [*numbers[: context_length - 1], end]
        row[: len(numbers)] = torch.tensor(numbers)
    return rows
