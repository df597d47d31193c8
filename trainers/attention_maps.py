"""Where CLS and the prompts look: attention weights over the patches of images, layer by layer.

The weights are computed again from the tokens that enter each layer, by the layer's own maps, because the fused kernels
do not return them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset, default_collate

from clip import KVCache, Segment
from clip.towers import BeforeLayer, Transformer, VisionTransformer
from trainers.prompted import PromptedCLIP

if TYPE_CHECKING:
    from trainers.base import PromptTrainer

IMAGES_OF_A_KIND = 2  # correct and wrong ones
CANDIDATES = 200  # test images among which they are chosen
MAX_PROMPTS, MAX_LAYERS = 3, 6  # that are kept, evenly spaced
SIDE = 64  # pixels of the kept images, at most


class WeightRecorder:
    """Records the weights of every layer of an image tower (a `clip.towers.Trace`).

    Attributes:
        passes: one dict per forward pass, {(segment, layer): weights (B, n, number of keys)}, the mean over the heads.
        keys: the segments that those keys belong to, in order, with their numbers of tokens.
    """

    def __init__(self, tower: Transformer):
        self.tower = tower
        self.passes: list[dict[tuple[str, int], Tensor]] = []
        self.keys: dict[str, list[tuple[str, int]]] = {}

    def on_forward(
        self, segments: dict[str, Segment], cache: KVCache | None, before_layer: BeforeLayer | None
    ) -> BeforeLayer:
        self.passes.append({})

        def record(depth: int, current: dict[str, Segment]) -> None:
            if before_layer is not None:
                before_layer(depth, current)
            block, last = self.tower.blocks[depth], depth == len(self.tower.blocks) - 1
            cached = cache.layers[depth] if cache and cache.layers else {}
            for name, segment in current.items():
                if last and not segment.wanted:
                    continue
                keys = {
                    other: cached[other].keys
                    if other in cached
                    else block.attn.keys_values(block.ln_1(current[other].tokens)).keys
                    for other in segment.attends_to
                }
                queries = block.attn.queries(block.ln_1(segment.tokens))
                batch = max(len(queries), *(len(k) for k in keys.values()))
                joined = torch.cat([k.expand(batch, -1, -1, -1) for k in keys.values()], dim=-2)
                scores = queries.expand(batch, -1, -1, -1) @ joined.mT / queries.shape[-1] ** 0.5
                self.passes[-1][name, depth] = F.softmax(scores.float(), dim=-1).mean(dim=1)
                self.keys[name] = [(other, k.shape[-2]) for other, k in keys.items()]

        return record

    def on_prefill(self, segments: dict[str, Segment], cache: KVCache) -> None:
        pass


class TokenMaps(NamedTuple):
    """Where T tokens of the image tower attend to in L layers, for I images.

    Attributes:
        weights: (I, T, L, g, g), on the g x g patches; each token's weights over all keys sum to 1. 0 where a token
            does not exist in a layer.
        tokens: names of the T tokens.
        layers: numbers of the L layers, from 1.
    """

    weights: Tensor
    tokens: list[str]
    layers: list[int]


@torch.no_grad()
def token_maps(model: PromptedCLIP, images: Tensor, text: Tensor | None = None) -> TokenMaps | None:
    """Record where CLS and a few prompts attend to in images (I, 3, H, W); None without an image transformer.

    Args:
        text: the result of `text_features`, if already computed.
    """
    tower = model.clip.visual
    if not isinstance(tower, VisionTransformer):
        return None
    recorder = WeightRecorder(tower.transformer)
    tower.transformer.trace = recorder
    try:
        model(images, text)
    finally:
        tower.transformer.trace = None
    found = max(recorder.passes, key=len)  # a method may also run the frozen tower
    layers = spread(len(tower.transformer.blocks), MAX_LAYERS)
    shown = [("CLS", "image", 0)]
    for name in dict.fromkeys(name for name, _ in found if name != "image"):
        count = max(weights.shape[1] for (own, _), weights in found.items() if own == name)
        shown += [(f"{name} {i + 1}", name, i) for i in spread(count, MAX_PROMPTS)]
    side = images.shape[-1] // tower.conv1.kernel_size[0]
    maps = torch.zeros(len(images), len(shown), len(layers), side, side)
    for t, (_, name, token) in enumerate(shown):
        for column, layer in enumerate(layers):
            if (name, layer) in found:
                first = patches_from(recorder.keys[name])
                weights = found[name, layer][:, token, first : first + side**2]
                maps[:, t, column] = weights.unflatten(1, (side, side)).cpu()
    return TokenMaps(maps, [label for label, _, _ in shown], [layer + 1 for layer in layers])


def attention_maps(trainer: PromptTrainer) -> dict[str, np.ndarray]:
    """Record where the tokens of the image tower attend to, for a few correct and wrong test images.

    Returns:
        attention (I, T, L, g, g), tokens (T,), layers (L,): see `TokenMaps`. pictures (I, h, w): the images as the
        model sees them, in gray. truth (I,), predicted (I,): names. Empty for a backbone without an image transformer,
        or without test images.
    """
    images, truth, predicted = choose_images(trainer)
    maps = token_maps(trainer.model, images) if truth else None
    if maps is None:
        return {}
    gray = F.interpolate(images.float().mean(dim=1, keepdim=True), size=min(SIDE, images.shape[-1]), mode="area")[:, 0]
    low, high = gray.amin(dim=(1, 2), keepdim=True), gray.amax(dim=(1, 2), keepdim=True)
    return {
        "attention": maps.weights.numpy().astype(np.float16),
        "pictures": (255 * (gray - low) / (high - low).clamp(min=1e-6)).cpu().numpy().astype(np.uint8),
        "tokens": np.array(maps.tokens),
        "layers": np.array(maps.layers),
        "truth": np.array(truth),
        "predicted": np.array(predicted),
    }


def patches_from(keys: Sequence[tuple[str, int]]) -> int:
    """Return the position of the first patch among the keys; CLS precedes it."""
    position = 0
    for name, count in keys:
        if name == "image":
            return position + 1
        position += count
    return position


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spaced, with the first and the last one."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, most))})


@torch.no_grad()
def choose_images(trainer: PromptTrainer) -> tuple[Tensor, list[str], list[str]]:
    """Choose the correct and the wrong predictions of highest confidence, on different classes where possible.

    Returns:
        Images (I, 3, H, W) on the device, true class names, predicted class names.
    """
    loader, names = trainer.dm.test_loader, trainer.lab2cname
    numbers = spread(len(loader.dataset), CANDIDATES)
    batches = DataLoader(Subset(loader.dataset, numbers), loader.batch_size, collate_fn=default_collate)
    images, labels, logits, text = [], [], [], trainer.model.text_features()
    for batch in batches:
        images.append(batch["img"])
        labels.append(batch["label"])
        logits.append(trainer.model(batch["img"].to(trainer.device), text).float().cpu())
    probabilities, label = F.softmax(torch.cat(logits), dim=-1), torch.cat(labels)
    confidence, prediction = probabilities.max(dim=-1)
    chosen: list[int] = []
    for right in (True, False):
        of_kind = [i for i in confidence.argsort(descending=True).tolist() if (prediction[i] == label[i]) == right]
        classes: set[int] = set()
        new = [i for i in of_kind if int(label[i]) not in classes and not classes.add(int(label[i]))]  # type: ignore
        chosen += (new + [i for i in of_kind if i not in new])[:IMAGES_OF_A_KIND]
    picked = torch.cat(images)[chosen].to(trainer.device)
    return picked, [names[int(label[i])] for i in chosen], [names[int(prediction[i])] for i in chosen]
