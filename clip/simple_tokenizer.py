"""Compatibility: the tokenizer for trainer files that use `from clip.simple_tokenizer import SimpleTokenizer`."""

from open_clip.tokenizer import (
    SimpleTokenizer,
    basic_clean,
    bytes_to_unicode,
    default_bpe,
    get_pairs,
    whitespace_clean,
)

__all__ = ["SimpleTokenizer", "basic_clean", "bytes_to_unicode", "default_bpe", "get_pairs", "whitespace_clean"]
