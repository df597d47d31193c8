"""The fine-tuning protocols that VPT is compared with (arXiv 2203.12119, section 4.1), on CLIP's image tower.

Linear, MLP-k   only the head, of one or k linear maps, is trained
Partial-k, Bias, Full   the head, and the last k layers, all biases (BitFit, arXiv 2106.10199), or the whole tower
Sidetune   s f + (1 - s) W g: a side network g next to the frozen tower f (arXiv 1912.13503)
Adapter    m + up(gelu(down(m))) after the MLP of each layer (arXiv 2005.00247)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import alexnet

from basics import UserError
from clip.towers import LayerAdapter, ResidualAttentionBlock, VisionTransformer

TUNES_TOWER = ("partial", "bias", "prompts+bias", "full")
HEAD_BIAS = -math.log(99)  # of the released linear head: every class starts with a probability of 1 %
HEAD_DROPOUT = 0.1  # of the released MLP head
SIDE_FEATURES = 256 * 6 * 6  # of AlexNet: channels x positions
SMALLEST_SIDE = 63  # pixels: below, AlexNet has no positions left


def build_head(width: int, n_classes: int, layers: int) -> nn.Sequential | nn.Linear:
    """Build `layers` linear maps, each but the last with ReLU, batch norm, and dropout, initialized as released."""
    last = nn.Linear(width, n_classes)
    nn.init.constant_(last.bias, HEAD_BIAS)
    nn.init.kaiming_normal_(last.weight, mode="fan_out")
    if layers == 1:
        return last
    hidden: list[nn.Module] = []
    for _ in range(layers - 1):
        linear = nn.Linear(width, width)
        nn.init.kaiming_normal_(linear.weight, mode="fan_out")
        hidden += [linear, nn.ReLU(), nn.BatchNorm1d(width), nn.Dropout(HEAD_DROPOUT)]
    return nn.Sequential(*hidden, last)


def head_groups(learner: nn.Module) -> list[dict]:
    """Exempt the bias of the last map of `learner.head` from weight decay, as the released code does."""
    *_, last = learner.get_submodule("head").modules()
    rest = [p for p in learner.parameters() if p is not last.bias]
    return [{"params": rest}, {"params": [last.bias], "weight_decay": 0.0}]


def unfreeze(tower: VisionTransformer, tune: str, partial: int) -> VisionTransformer:
    """Select the parameters that a protocol trains; `proj`, which is the text head's, stays frozen.

    Args:
        tune: one of TUNES_TOWER.
        partial: the number of layers, from the last one, that `partial` trains with the final LayerNorm.
    """
    layers = len(tower.transformer.blocks)
    last = ("ln_post.", *(f"transformer.resblocks.{i}." for i in range(layers - partial, layers)))
    for name, p in tower.named_parameters():
        tuned = name.startswith(last) if tune == "partial" else tune == "full" or name.endswith("bias")
        p.requires_grad_(tuned and name != "proj")
    return tower


class BottleneckAdapter(LayerAdapter):
    """A bottleneck after the MLP. `up` starts at zero, so that the tower starts unchanged.

    In the released code all four tensors start at zero, and only the bias of `up` ever learns.
    """

    def __init__(self, width: int, reduction: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, width // reduction), nn.Linear(width // reduction, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def mlp_update(self, block: ResidualAttentionBlock, tokens: Tensor, update: Tensor) -> Tensor:
        return update + self.up(F.gelu(self.down(update.to(self.down.weight)))).to(update)


class SideNetwork(nn.Module):
    """AlexNet next to the frozen tower; all of it is trained. It gets the images normalized for CLIP.

    Args:
        width: of the image tower.
        weights: "imagenet" (torchvision's) or "random".

    Raises:
        UserError: the weights cannot be downloaded.
    """

    def __init__(self, width: int, weights: str):
        super().__init__()
        try:
            network = alexnet(weights="IMAGENET1K_V1" if weights == "imagenet" else None)
        except OSError as error:
            raise UserError(
                f"TRAINER.VPT.SIDE_WEIGHTS: expected AlexNet's ImageNet weights, got an error: {error}. "
                "Connect to the internet once, or set SIDE_WEIGHTS random."
            ) from error
        self.features, self.pool = network.features, network.avgpool
        self.proj = nn.Linear(SIDE_FEATURES, width, bias=False)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, feature: Tensor) -> Tensor:
        """Mix features: images (B, 3, H, W) and their frozen features (B, width) -> (B, width)."""
        images, smallest = images.to(self.proj.weight), min(images.shape[-2:])
        if smallest < SMALLEST_SIDE:
            images = F.interpolate(images, scale_factor=SMALLEST_SIDE / smallest, mode="bilinear")
        side = self.proj(self.pool(self.features(images)).flatten(1))
        share = self.alpha.sigmoid()
        return share * feature + (1 - share) * side
