"""A frozen CLIP with prompts: from text and image features to logits, with texts in blocks that fit into memory.

Symbols: B images, C classes, D the width of the shared embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip import CLIP, TEXTS_AT_ONCE, tokenize
from dassl.engine import distributed
from dassl.utils import return_freed_memory


class PromptedCLIP(nn.Module):
    """A frozen CLIP with prompts. A method defines how text and image features are computed.

    Attributes:
        prompt_learner: owns all trained tensors, under the names of the released checkpoints.
        per_class_parameters: whether some trained tensors belong to single classes and cannot be used for others.
        text_block: number of texts whose activations are kept for the backward pass at a time; 0: all.
        independent_classes: whether the features of a class are independent of the other classes.
        text_depends_on_image: whether `text_features` is empty, because every image has text features of its own.
        frozen_image_encoder: whether the method needs only frozen CLIP's image features; `images` may be features.
    """

    clip: CLIP
    prompt_learner: Any
    per_class_parameters = False
    text_block = 0
    independent_classes = True
    text_depends_on_image = False
    frozen_image_encoder = False

    def __init__(self, clip_model: CLIP, n_classes: int):
        super().__init__()
        self.clip, self.n_classes = clip_model, n_classes

    def class_features(self, classes: slice) -> Tensor:
        """Return unit-length text features of some classes: (C, D), or (C, K, D) for a method with K per class."""
        raise NotImplementedError

    def text_features(self) -> Tensor:
        """Compute `class_features` of all classes."""
        return self.in_blocks(self.class_features, self.text_block if self.independent_classes else 0)

    def texts_of_a_class(self, batch: int) -> int:
        """Number of texts per class in a training step of `batch` images."""
        return 1

    def text_step(self, batch: int, classes: slice) -> Tensor:
        """Compute the text side of a training step of `batch` images for some classes, to measure its memory."""
        return self.class_features(classes)

    def in_blocks(self, compute: Callable[[slice], Tensor], size: int, dim: int = 0) -> Tensor:
        """Apply `compute` to all classes in blocks of `size` classes (0: all at once) and concatenate along `dim`.

        No activations of a block are kept: the backward pass computes them again. Along `dim` 0, several processes
        share the classes.
        """
        n = self.n_classes
        if dim == 0 and self.independent_classes and 1 < distributed.size() <= n:
            mine = distributed.share(n)
            return distributed.gather(self._in_blocks(compute, size, mine, dim), n)
        return self._in_blocks(compute, size, slice(0, n), dim)

    def _in_blocks(self, compute: Callable[[slice], Tensor], size: int, classes: slice, dim: int) -> Tensor:
        if not 0 < size < classes.stop - classes.start:
            return compute(classes)

        def one(block: slice) -> Tensor:
            return_freed_memory(self.clip.logit_scale.device)  # of the previous block
            return compute(block)

        blocks = [slice(at, min(at + size, classes.stop)) for at in range(classes.start, classes.stop, size)]
        return torch.cat([checkpoint(one, block, use_reentrant=False) for block in blocks], dim)

    def tower_features(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) as frozen CLIP's features (B, D), not normalized. They may be given instead."""
        return images if images.dim() == 2 else self.clip.encode_image(images).float()

    def image_features(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) as unit-length features (B, D): frozen CLIP's, which may be given instead."""
        return images if images.dim() == 2 else F.normalize(self.tower_features(images), dim=-1)

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Compute cosines of (B, D) and (C, D), times CLIP's learned scale: (B, C) (arXiv 2103.00020, figure 3)."""
        return self.clip.logit_scale.exp() * image @ text.t()

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits (B, C) of images (B, 3, H, W). `text`: the result of `text_features`, if already computed."""
        return self.logits(self.image_features(images), self.text_features() if text is None else text)


class FixedTextCLIP(PromptedCLIP):
    """CLIP with fixed texts: the feature of a class is the mean of the features of its texts.

    Args:
        texts: of C classes: one text, or several.
        normalize_each: to unit length before the mean.
    """

    features: Tensor

    def __init__(self, clip_model: CLIP, texts: Sequence[str | Sequence[str]], normalize_each: bool = True):
        super().__init__(clip_model, len(texts))
        features = frozen_text_features(clip_model, texts, normalize_each)
        self.register_buffer("features", features, persistent=False)

    def class_features(self, classes: slice) -> Tensor:
        return self.features[classes]


def frozen_text_features(clip_model: CLIP, texts: Sequence[str | Sequence[str]], normalize_each: bool = True) -> Tensor:
    """Return the unit-length mean of the features of each class's one or several texts: (C, D).

    Args:
        normalize_each: to unit length before the mean.
    """
    of_class = encode_texts(clip_model, texts)
    means = [(F.normalize(own, dim=-1) if normalize_each else own).mean(dim=0) for own in of_class]
    return F.normalize(torch.stack(means), dim=-1)


@torch.no_grad()
def encode_texts(clip_model: CLIP, texts: Sequence[str | Sequence[str]]) -> tuple[Tensor, ...]:
    """Return frozen CLIP's features, not normalized, of the one or several texts of each class: C times (n, D)."""
    of_class = [[each] if isinstance(each, str) else each for each in texts]
    tokens = tokenize([text for own in of_class for text in own], clip_model.context_length)
    blocks = tokens.to(clip_model.logit_scale.device).split(TEXTS_AT_ONCE)
    features = torch.cat([clip_model.encode_text(block).float() for block in blocks])
    return features.split([len(own) for own in of_class])


def class_keys(classnames: list[str]) -> Tensor:
    """Return a number for each class, (C,) int64, by which a checkpoint can name its classes in a tensor."""
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in classnames]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])


def distance(features: Tensor, frozen: Tensor) -> Tensor:
    """Return 1 minus the mean cosine of learned and frozen CLIP's features, both (N, D): a scalar.

    The pull toward frozen CLIP of KgCoOp, TCP, SEP, and MMRL.
    """
    return 1 - F.cosine_similarity(features, frozen).mean()


def whole_model_shapes(clip_model: CLIP) -> dict[str, torch.Size]:
    """Return the shapes of CLIP's tensors, by their names in released checkpoints that hold the whole model."""
    shapes = {}
    for name, tensor in clip_model.state_dict().items():
        side = "image_encoder." if name.startswith("visual.") else "" if name == "logit_scale" else "text_encoder."
        shapes[side + name.removeprefix("visual.")] = tensor.shape
    return shapes
