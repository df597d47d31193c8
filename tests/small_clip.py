"""A small CLIP with random weights, for tests that need a backbone but no trained one."""

import torch

from clip import CLIP, CLIPConfig

SMALL_HEADS = (4, 2)  # vision, text


def make_small_clip(seed=0):
    """Make a frozen small CLIP in which every tensor differs from its usual initial value."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIP(CLIPConfig(24, 8, 32, 3, SMALL_HEADS[0], 16, 2, SMALL_HEADS[1], 64, 77, 49408))
        for value in model.parameters():
            value.data += 0.1 * torch.randn_like(value)
    return model.eval().requires_grad_(False)
