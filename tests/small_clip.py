"""A small CLIP with random weights, for tests that need a backbone but no trained one."""

import json

import torch
from safetensors.torch import save_file

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


def save_small_clip(path, sizes=True):
    """Save the small CLIP as a weights file, by default with the sizes that no shape of a tensor shows."""
    state = {k: v.contiguous() for k, v in make_small_clip().state_dict().items()}
    heads = json.dumps({"vision_heads": SMALL_HEADS[0], "text_heads": SMALL_HEADS[1]})
    save_file(state, path, metadata={"sizes": heads} if sizes else None)
    return path
