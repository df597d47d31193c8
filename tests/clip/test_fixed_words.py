"""Fixed texts whose lower layers run once give the features of whole texts."""

import plain_clip
import pytest
import torch
from small_clip import SMALL_HEADS

from clip import FixedWords, encode_fixed_words, words

TEXTS = ["a photo of a cat.", "a photo of a Boeing 747-400.", "a photo of a sea horse.", "a photo of a dog."]


@pytest.mark.parametrize("texts", [TEXTS, ["cat", "a dog"]], ids=["with shared words", "without"])
@pytest.mark.parametrize("at_once", [3, 1024])
def test_texts_that_start_at_a_later_layer_equal_the_plain_path(small_clip, monkeypatch, texts, at_once):
    monkeypatch.setattr(words, "TEXTS_AT_ONCE", at_once)
    later = FixedWords(small_clip, texts, below=1)
    expected = plain_clip.encode_text(small_clip.state_dict(), texts, SMALL_HEADS)
    torch.testing.assert_close(encode_fixed_words(small_clip, later), expected, atol=1e-5, rtol=0)
    parts = [encode_fixed_words(small_clip, later, classes=slice(i, i + 2)) for i in range(0, len(texts), 2)]
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-5, rtol=0)


def test_the_lower_layers_keep_the_bits(small_clip):
    whole, later = (encode_fixed_words(small_clip, FixedWords(small_clip, TEXTS, below)) for below in (0, 1))
    assert torch.equal(whole, later)
