"""A frozen CLIP with prompts: how a method's two features become logits, and how its texts fit into memory.

Letters: B images, C classes, D the shared embedding's width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip import CLIP, tokenize
from dassl.utils import return_freed_memory

TEXTS_AT_ONCE = 1024  # encoded without gradients: enough to keep any device busy


class PromptedCLIP(nn.Module):
    """A frozen CLIP with prompts. Methods say how the two features come about.

    Attributes:
        prompt_learner: the module that owns all that is trained, under the names of the released checkpoints.
        per_class_parameters: some of it belongs to single classes, so that it serves no others.
        text_block: class texts whose activations are kept for the backward pass at a time; 0: all.
        independent_classes: a class's features do not depend on which other classes are computed with it.
        frozen_image_encoder: the method needs only frozen CLIP's feature of an image; `images` may be features.
    """

    clip: CLIP
    prompt_learner: Any
    per_class_parameters = False
    text_block = 0
    independent_classes = True
    frozen_image_encoder = False

    def __init__(self, clip_model: CLIP, n_classes: int):
        super().__init__()
        self.clip, self.n_classes = clip_model, n_classes

    def class_features(self, classes: slice) -> Tensor:
        """Unit-length features of some of the classes, (C, D); (C, K, D) for a method with K per class."""
        raise NotImplementedError

    def text_features(self) -> Tensor:
        """`class_features` of all classes."""
        return self.in_blocks(self.class_features, self.text_block if self.independent_classes else 0)

    def texts_of_a_class(self, batch: int) -> int:
        """How many texts of each class a training step of `batch` images has."""
        return 1

    def text_step(self, batch: int, classes: slice) -> Tensor:
        """What a training step of `batch` images computes of some classes' texts; its memory is measured."""
        return self.class_features(classes)

    def in_blocks(self, compute: Callable[[slice], Tensor], size: int, dim: int = 0) -> Tensor:
        """What `compute` gives for all classes, in blocks of `size` classes (0: all at once) that are put together
        along `dim`. Of a block nothing is kept: its activations are computed again in the backward pass."""
        n = self.n_classes
        if not 0 < size < n:
            return compute(slice(0, n))

        def one(block: slice) -> Tensor:
            return_freed_memory(self.clip.logit_scale.device)  # that of the block before
            return compute(block)

        blocks = [slice(first, min(first + size, n)) for first in range(0, n, size)]
        return torch.cat([checkpoint(one, block, use_reentrant=False) for block in blocks], dim)

    def image_features(self, images: Tensor) -> Tensor:
        """Unit-length features of images (B, 3, H, W): (B, D). Here: frozen CLIP's own, which may be given as such."""
        if images.dim() == 2:
            return images
        return F.normalize(self.clip.encode_image(images).float(), dim=-1)

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Similarities of (B, D) and (C, D) times CLIP's learned scale: (B, C) (CLIP, arXiv 2103.00020, figure 3)."""
        return self.clip.logit_scale.exp() * image @ text.t()

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Logits (B, C) of images (B, 3, H, W). `text`: features computed before, by `text_features`."""
        return self.logits(self.image_features(images), self.text_features() if text is None else text)


class FixedTextCLIP(PromptedCLIP):
    """CLIP with texts that do not change: the class feature is the mean over its texts' features (one or more).

    Args:
        texts: T lists of C texts, one of each list for each class.
    """

    features: Tensor

    def __init__(self, clip_model: CLIP, texts: list[list[str]]):
        super().__init__(clip_model, len(texts[0]))
        device = clip_model.logit_scale.device

        def encode(each: list[str]) -> Tensor:
            tokens = tokenize(each, clip_model.context_length).to(device)
            return torch.cat([clip_model.encode_text(t).float() for t in tokens.split(TEXTS_AT_ONCE)])

        with torch.no_grad():
            features = torch.stack([F.normalize(encode(each), dim=-1) for each in texts]).mean(dim=0)
        self.register_buffer("features", F.normalize(features, dim=-1), persistent=False)

    def class_features(self, classes: slice) -> Tensor:
        return self.features[classes]


def whole_model_shapes(clip_model: CLIP) -> dict[str, torch.Size]:
    """Shapes of CLIP's tensors, by their names in the checkpoints of those trainers that save the whole model."""
    shapes = {}
    for name, tensor in clip_model.state_dict().items():
        side = "image_encoder." if name.startswith("visual.") else "" if name == "logit_scale" else "text_encoder."
        shapes[side + name.removeprefix("visual.")] = tensor.shape
    return shapes
