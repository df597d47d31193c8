"""CLIP's ResNet image tower: open_clip's class, under OpenAI's parameter names.

A ResNet has no tokens that travel through layers, so nothing can stand beside them: it serves the methods that leave
the image side alone. Importing this file imports open_clip, which takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor

from basics import UserError

from .towers import check_size

STRIDE = 32  # pixels of the image for one cell of the last feature map
EXPANSION = 32  # width of the last feature map, in widths of the first stage


class NoImageTokens(UserError, AttributeError):
    """Image tokens were asked of a ResNet. An AttributeError too, so that `hasattr` answers False."""

    def __init__(self, name: str):
        super().__init__(
            f"the backbone's image tower is a ResNet, which has no tokens for prompts to stand beside ({name!r} was "
            f"asked for): expected a ViT for a method with image prompts; set MODEL.BACKBONE.NAME to one, such as "
            f"ViT-B/16, or take a method that leaves the image side alone"
        )


@dataclass(frozen=True)
class ResNetConfig:
    """All sizes of a CLIP with a ResNet; the text side's as in `clip.CLIPConfig`.

    Attributes:
        vision_width: channels of the first stage.
        vision_blocks: blocks of each of the four stages.
        vision_heads: heads of the attention that pools the last feature map.
    """

    image_size: int
    vision_width: int
    vision_blocks: tuple[int, ...]
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    embed_dim: int
    context_length: int
    vocab_size: int
    activation: str = "quick_gelu"  # of the text tower: a ResNet has ReLUs

    def image_tower(self) -> ResNet:
        return ResNet(self)

    def __getattr__(self, name: str):
        if name in ("patch_size", "vision_layers"):
            raise NoImageTokens(name)
        raise AttributeError(name)


class ResNet(ModifiedResNet):
    """The image tower: three stem convolutions, four stages of bottleneck blocks, attention pooling."""

    def __init__(self, sizes: ResNetConfig):
        super().__init__(
            list(sizes.vision_blocks), sizes.embed_dim, sizes.vision_heads, sizes.image_size, sizes.vision_width
        )
        self.input_resolution = sizes.image_size
        self.eval()

    def train(self, mode: bool = True) -> ResNet:
        """Stays in evaluation mode: the batch norms' statistics belong to the frozen weights."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """The pooled feature: (B, 3, H, W) -> (B, D), not normalised."""
        check_size(images, self.input_resolution)
        return super().forward(images.to(self.conv1.weight))

    def __getattr__(self, name: str):
        if name in ("class_embedding", "embed", "ln_post", "ln_pre", "proj", "project", "transformer"):
            raise NoImageTokens(f"visual.{name}")
        return super().__getattr__(name)
