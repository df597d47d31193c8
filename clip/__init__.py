"""Frozen CLIP and its prompts. This package knows nothing about trainers or datasets."""

from .attention import KeysValues, Segment
from .clip import load
from .config import BackboneConfig, CLIPConfig
from .kv_cache import KVCache
from .low_rank import LowRankUpdates
from .patterns import gather_tokens
from .prompts import (
    add_frozen_image,
    add_parameter,
    context_vectors,
    deep_names,
    encode_fixed_words,
    encode_image,
    encode_words,
    image_segments,
    plain_image_segments,
    prefill_image,
    split_words,
)
from .ragged import leading_tokens
from .sources import OPENAI_PIXELS
from .tokenizer import encode, tokenize
from .towers import CLIP, LayerAdapter, end_of_text
from .weights import available_models, backbone_config, backbone_pixels, load_clip
from .words import TEXTS_AT_ONCE, CachedWords, ClassWords, FixedWords

__all__ = [
    "CLIP",
    "BackboneConfig",
    "CachedWords",
    "ClassWords",
    "FixedWords",
    "KeysValues",
    "KVCache",
    "LayerAdapter",
    "LowRankUpdates",
    "OPENAI_PIXELS",
    "Segment",
    "TEXTS_AT_ONCE",
    "CLIPConfig",
    "add_frozen_image",
    "add_parameter",
    "available_models",
    "backbone_config",
    "backbone_pixels",
    "context_vectors",
    "deep_names",
    "encode",
    "encode_fixed_words",
    "encode_image",
    "encode_words",
    "end_of_text",
    "image_segments",
    "leading_tokens",
    "load",
    "load_clip",
    "plain_image_segments",
    "prefill_image",
    "split_words",
    "gather_tokens",
    "tokenize",
]
