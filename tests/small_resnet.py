"""A small CLIP with a ResNet and random weights, for tests that need one but no trained one."""

import torch
from torch import nn

from clip import CLIP


def shake(model, seed):
    """Move every tensor away from its usual initial value (zero biases, zero branches, statistics of no data)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.02 * torch.randn(value.shape, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Similar to a trained network, so that features neither vanish nor explode with depth.
                module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
                module.running_mean.copy_(0.1 * torch.randn(module.running_mean.shape, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return model


def make_small_resnet(seed=0):
    """Make a frozen CLIP for 32 x 32 pixels with one block per stage."""
    from clip.config import ResNetConfig

    config = ResNetConfig(32, 8, (1, 1, 1, 1), 4, 64, 2, 1, 256, 77, 49408)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = shake(CLIP(config), seed)
    return model.eval().requires_grad_(False)
