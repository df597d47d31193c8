"""CLIP's ResNet image tower: open_clip's class, with OpenAI's parameter names.

A ResNet has no tokens that travel through layers, so it takes no prompts: it serves the methods that leave the image
side unchanged. Importing this file imports open_clip, which takes seconds.
"""

from __future__ import annotations

from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor

from .config import NoImageTokens, ResNetConfig, check_size


class ResNet(ModifiedResNet):
    """The image tower: three stem convolutions, four stages of bottleneck blocks, attention pooling."""

    def __init__(self, config: ResNetConfig):
        super().__init__(
            list(config.vision_blocks), config.embed_dim, config.vision_heads, config.image_size, config.vision_width
        )
        self.input_resolution = config.image_size
        self.eval()

    def train(self, mode: bool = True) -> ResNet:
        """Stay in evaluation mode: the statistics of the batch norms belong to the frozen weights."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled feature: (B, 3, H, W) -> (B, D), not normalized."""
        check_size(images, self.input_resolution)
        return super().forward(images.to(self.conv1.weight))

    def __getattr__(self, name: str):
        if name in ("class_embedding", "embed", "ln_post", "ln_pre", "proj", "project", "transformer"):
            raise NoImageTokens(f"visual.{name}")
        return super().__getattr__(name)
