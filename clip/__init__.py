"""Frozen CLIP and its prompts. Knows nothing of trainers or data sets."""

from .attention import KeysValues, Memory, Segment, take
from .clip import load
from .fusion import TokenFusion
from .prompts import (
    add_parameter,
    context_vectors,
    deep_names,
    encode_image,
    encode_words,
    image_segments,
    split_words,
)
from .tokenizer import encode, tokenize
from .towers import CLIP, Sizes, end_of_text
from .weights import available_models, backbone_sizes, load_clip
from .words import ClassWords

__all__ = [
    "CLIP",
    "ClassWords",
    "KeysValues",
    "Memory",
    "Segment",
    "Sizes",
    "TokenFusion",
    "add_parameter",
    "available_models",
    "backbone_sizes",
    "context_vectors",
    "deep_names",
    "encode",
    "encode_image",
    "encode_words",
    "end_of_text",
    "image_segments",
    "load",
    "load_clip",
    "split_words",
    "take",
    "tokenize",
]
