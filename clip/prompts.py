"""Learned context inside class texts and beside image patches: where it stands, what it starts from, who reads it.

How the texts of the classes are laid out stands in `clip.words`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Segment
from .tokenizer import decode, encode, tokenize
from .towers import CLIP, BeforeLayer, end_of_text
from .words import ClassWords


def context_vectors(clip_model: CLIP, words: str, shape: tuple[int, ...]) -> nn.Parameter:
    """The start of a learned context, in float32: the embeddings of `words`, or normal with deviation 0.02.

    Args:
        words: such as "a photo of a"; empty for a random start.
        shape: (*batch, M) of a random start; words bring their own number and no batch.

    Returns:
        (M, text width) or (*shape, text width).
    """
    embedding = clip_model.token_embedding.weight
    if not words.strip():
        return nn.Parameter(0.02 * torch.randn(*shape, embedding.shape[1]))
    tokens = tokenize(words.replace("_", " "), clip_model.context_length)[0, 1:]
    tokens = tokens[: end_of_text(tokens)]
    if len(tokens) != shape[-1]:
        print(f"The context starts from the {len(tokens)} tokens of {words!r}: the number {shape[-1]} is not used")
    return nn.Parameter(embedding[tokens.to(embedding.device)].float().clone())


def split_words(words: str, n_ctx: int) -> tuple[str, str]:
    """The words that start a context of n_ctx vectors, and those behind, which stay as they are before the class name.

    As MaPLe's released code does, token by token: of "a photo of a" two vectors replace "a photo". Too few words: a
    random start.
    """
    tokens = encode(words.replace("_", " "))
    return (decode(tokens[:n_ctx]), decode(tokens[n_ctx:])) if n_ctx <= len(tokens) else ("", "")


def encode_words(
    clip_model: CLIP,
    words: ClassWords,
    ctx: Tensor,
    deep: Sequence[Tensor] = (),
    before_layer: BeforeLayer | None = None,
    classes: slice = slice(None),
) -> Tensor:
    """Unit-length text features (C, D) with one context for all classes, replaced before the first layers.

    [SOS] reads itself; the context reads it and itself; the words of a class read all of these.

    Args:
        ctx: (M, text width), before the name.
        deep: what takes its place before layers 1, 2, ..., each (M, text width), without positions.
        before_layer: as in `Transformer.forward`; the segments are "start", "ctx" and "rest", a row a class.
        classes: the C classes that are encoded.
    """
    rows = words.rows(classes)
    start, rest = rows.around(ctx[None])
    dtype = clip_model.dtype
    segments = {
        "start": Segment(start[:, :1].to(dtype), attends_to=("start",), wanted=False),
        "ctx": Segment(
            start[:, 1:].to(dtype), attends_to=("start", "ctx"), deep=[d[None].to(dtype) for d in deep], wanted=False
        ),
        "rest": Segment(rest.to(dtype), attends_to=("start", "ctx", "rest"), output=rows.end, packing=rows.packing),
    }
    x = clip_model.transformer(segments, before_layer=before_layer)["rest"]
    return F.normalize(clip_model.project_text(x).float(), dim=-1)[rows.back]


def image_segments(
    clip_model: CLIP, images: Tensor, prompts: Tensor, deep: Sequence[Tensor] = ()
) -> dict[str, Segment]:
    """[CLS, patches] and prompts behind them, which all read each other.

    Args:
        images: (B, 3, H, W).
        prompts: (n, vision width) or (B, n, vision width); they pass through `ln_pre`.
        deep: what takes their place before layers 1, 2, ..., of the same shape, as it is.
    """
    dtype, tower = clip_model.dtype, clip_model.visual
    first, *later = (p.to(dtype) if p.dim() == 3 else p[None].to(dtype) for p in (prompts, *deep))
    everyone = ("image", "prompts")
    return {
        "image": Segment(tower.embed(images), attends_to=everyone),
        "prompts": Segment(tower.ln_pre(first), attends_to=everyone, deep=later, wanted=False),
    }


def encode_image(clip_model: CLIP, segments: dict[str, Segment], before_layer: BeforeLayer | None = None) -> Tensor:
    """Unit-length CLS features (B, D) of `image_segments`. before_layer: as in `Transformer.forward`."""
    tower, image = clip_model.visual, segments["image"]
    image.output = torch.zeros(1, 1, dtype=torch.long, device=image.tokens.device)
    x = tower.transformer(segments, before_layer=before_layer)["image"][:, 0]
    return F.normalize(tower.project(x).float(), dim=-1)


def deep_names(side: str, depth: int) -> list[str]:
    """Names of the prompts before layers 1 to depth - 1 in the released checkpoints of MaPLe's baselines."""
    return [f"{side}.transformer.resblocks.{i}.VPT_shallow" for i in range(1, depth)]


def add_parameter(module: nn.Module, name: str, value: Tensor) -> nn.Parameter:
    """A parameter under a dotted name, "image_encoder.VPT": released checkpoints name prompts by their place."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = getattr(module, part)
    parameter = nn.Parameter(value)
    module.register_parameter(last, parameter)
    return parameter
