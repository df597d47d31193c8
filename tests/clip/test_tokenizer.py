"""Token numbers equal CLIP's."""

import pytest

from basics import UserError
from clip import end_of_text, tokenize


def test_a_known_sentence_has_clips_token_numbers():
    row = tokenize("a photo of a cat.")[0]
    assert row[:8].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407]
    assert row.shape == (77,) and not row[8:].any()
    assert end_of_text(row[None]).tolist() == [7]


def test_a_text_that_is_too_long_is_refused_or_truncated():
    text = "cat " * 80
    with pytest.raises(UserError, match="expected at most 77 tokens, got 82"):
        tokenize(text)
    row = tokenize(text, truncate=True)[0]
    assert row[-1] == 49407 and row[-2] == 2368
    assert tokenize("cat " * 75)[0, -1] == 49407
