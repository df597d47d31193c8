"""Learned context in class texts and next to image patches: its position, its start, and what attends to it.

The layout of the class texts is in `clip.words`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basics import notify

from .attention import Segment
from .kv_cache import KVCache
from .tokenizer import decode, encode, tokenize
from .towers import CLIP, BeforeLayer, LayerAdapter, end_of_text
from .words import ClassWords, FixedWords


def context_vectors(clip_model: CLIP, words: str, shape: tuple[int, ...]) -> nn.Parameter:
    """Return the initial context in float32: the embeddings of `words`, or normal with a standard deviation of 0.02.

    Args:
        words: such as "a photo of a"; empty for a random start.
        shape: (*batch, M), for a random start. With words, M is their number of tokens, and there is no batch.

    Returns:
        (M, text width) or (*shape, text width).
    """
    embedding = clip_model.token_embedding.weight
    if not words.strip():
        return nn.Parameter(0.02 * torch.randn(*shape, embedding.shape[1]))
    tokens = tokenize(words.replace("_", " "), clip_model.context_length)[0, 1:]
    tokens = tokens[: end_of_text(tokens)]
    if len(tokens) != shape[-1]:
        notify(f"Initializing the context with the {len(tokens)} tokens of {words!r}, not {shape[-1]} random vectors")
    return nn.Parameter(embedding[tokens.to(embedding.device)].float().clone())


def split_words(words: str, n_ctx: int) -> tuple[str, str]:
    """Split into the words that n_ctx context vectors start from, and the fixed words between them and the class name.

    Token by token, as MaPLe's released code does: two vectors replace "a photo" of "a photo of a". Both parts are empty
    if there are too few words, which means a random start.
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
    """Encode texts with one context for all classes, replaced before the first layers: unit length, (C, D).

    [SOS] attends to itself, the context to [SOS] and itself, and the words of a class to all of these.

    Args:
        ctx: (M, text width), before the name.
        deep: its replacements before layers 1, 2, ..., each (M, text width), without positions.
        before_layer: as in `Transformer.forward`; the segments are "start", "ctx" and "rest" (one row per class).
        classes: the C classes to encode.
    """
    packed = words.packed(classes)
    start, rest = packed.embed(ctx[None])
    dtype = clip_model.dtype
    segments = {
        "start": Segment(start[:, :1].to(dtype), attends_to=("start",), wanted=False),
        "ctx": Segment(
            start[:, 1:].to(dtype), attends_to=("start", "ctx"), deep=[d[None].to(dtype) for d in deep], wanted=False
        ),
        "rest": Segment(rest.to(dtype), attends_to=("start", "ctx", "rest"), output=packed.end, packing=packed.packing),
    }
    x = clip_model.transformer(segments, before_layer=before_layer)["rest"]
    return F.normalize(clip_model.project_text(x).float(), dim=-1)[packed.row_of_class]


def encode_fixed_words(
    clip_model: CLIP,
    words: FixedWords,
    adapters: Mapping[int, LayerAdapter] | None = None,
    inserted: Segment | None = None,
    classes: slice = slice(None),
) -> Tensor:
    """Encode fixed texts in a text tower with trained parts from the layer `words.below` on: unit length, (C, D).

    [SOS] and the shared words attend to themselves; the rest of each text attends to these and to itself.

    Args:
        adapters: as in `Transformer.forward`.
        inserted: tokens after [SOS], to which all words attend; it may name "start" and "inserted" in `attends_to`.
        classes: the C classes to encode.
    """
    tower, dtype = clip_model.transformer, clip_model.dtype
    below = words.below if tower.trace is None else 0  # an observer sees all layers
    segments = words.segments(dtype, classes, below)
    start, rest = segments["start"], segments.pop("rest")
    if inserted is not None:
        segments["inserted"] = inserted
        if start.tokens.shape[1] > 1:
            shared = replace(start, tokens=start.tokens[:, 1:], attends_to=(*segments, "shared"))
            segments |= {"start": replace(start, tokens=start.tokens[:, :1]), "shared": shared}
    segments["rest"] = replace(rest, attends_to=(*segments, "rest"))
    x = tower(segments, adapters=adapters)["rest"]
    return F.normalize(clip_model.project_text(x).float(), dim=-1)[words.packed(classes).row_of_class]


def image_segments(
    clip_model: CLIP, images: Tensor, prompts: Tensor, deep: Sequence[Tensor] = (), first_layer: int = 0
) -> dict[str, Segment]:
    """Return [CLS, patches], followed by prompts; all of them attend to each other.

    Args:
        images: (B, 3, H, W).
        prompts: (n, vision width) or (B, n, vision width), or (M, 1, n, vision width) for M runs of each image; they
            pass through `ln_pre` if they join before layer 0.
        deep: their replacements before the following layers, of the same shape; these do not pass through `ln_pre`.
        first_layer: the layer before which the prompts join.
    """
    dtype, tower = clip_model.dtype, clip_model.visual
    first, *later = (p[None].to(dtype) if p.dim() == 2 else p.to(dtype) for p in (prompts, *deep))
    first = first if first_layer else tower.ln_pre(first)
    every_segment = ("image", "prompts")
    return {
        "image": Segment(tower.embed(images), attends_to=every_segment),
        "prompts": Segment(first, every_segment, deep=later, first_layer=first_layer, wanted=False),
    }


def plain_image_segments(clip_model: CLIP, images: Tensor) -> dict[str, Segment]:
    """Return [CLS, patches] of images (B, 3, H, W), which attend to each other."""
    return {"image": Segment(clip_model.visual.embed(images), attends_to=("image",))}


def add_frozen_image(segments: dict[str, Segment], first_layer: int) -> BeforeLayer:
    """Add "frozen": [CLS, patches] that leave "image" before a layer and then attend to themselves alone.

    Below that layer, nothing trained may reach them.

    Returns:
        what `Transformer.forward` needs as `before_layer`.
    """
    segments["frozen"] = replace(segments["image"], attends_to=("frozen",), first_layer=first_layer)

    def branch_off(depth: int, running: dict[str, Segment]) -> None:
        if depth == first_layer:
            running["frozen"].tokens = running["image"].tokens

    return branch_off


@torch.no_grad()
def prefill_image(clip_model: CLIP, images: Tensor) -> KVCache:
    """Compute the KV cache of `plain_image_segments`; its segment is "image"."""
    image = replace(plain_image_segments(clip_model, images)["image"], wanted=False)
    return clip_model.visual.transformer.prefill({"image": image})


def encode_image(
    clip_model: CLIP,
    segments: dict[str, Segment],
    before_layer: BeforeLayer | None = None,
    adapters: Mapping[int, LayerAdapter] | None = None,
    normalize: bool = True,
) -> Tensor:
    """Encode `image_segments` as CLS features (*batch, D).

    Args:
        before_layer, adapters: as in `Transformer.forward`.
        normalize: to unit length.
    """
    tower, image = clip_model.visual, segments["image"]
    image.output = torch.zeros(1, 1, dtype=torch.long, device=image.tokens.device)
    x = tower.transformer(segments, before_layer=before_layer, adapters=adapters)["image"][..., 0, :]
    features = tower.project(x).float()
    return F.normalize(features, dim=-1) if normalize else features


def deep_names(side: str, depth: int) -> list[str]:
    """Return the names of the prompts before layers 1 to depth - 1 in released checkpoints of MaPLe's baselines."""
    return [f"{side}.transformer.resblocks.{i}.VPT_shallow" for i in range(1, depth)]


def add_parameter(module: nn.Module, name: str, value: Tensor) -> nn.Parameter:
    """Register a parameter under a dotted name, such as "image_encoder.VPT", as released checkpoints name prompts."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = getattr(module, part)
    parameter = nn.Parameter(value)
    module.register_parameter(last, parameter)
    return parameter
