"""The backbone, images, and prompts of the reference values: tensors sampled by name, so no weights file is needed.

`tests/data/reference_values.json` holds what the authors' released code computes on exactly these tensors.
"""

import json
import zlib
from pathlib import Path

import torch
from yacs.config import CfgNode

from clip import CLIP, CLIPConfig

CASES = json.loads((Path(__file__).parent / "data" / "reference_values.json").read_text())
HEADS = (12, 8)  # vision, text


def uniform(name, shape, std, salt=0):
    """Sample a uniform tensor of standard deviation `std` from a generator seeded with the CRC-32 of its name."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + salt)
    return (torch.rand(tuple(shape), generator=generator) - 0.5) * 12**0.5 * std


def weight(name, shape, widths, salt):
    """Sample one tensor of the backbone; `widths` are the width and number of layers of its tower."""
    width, count = widths
    if name == "logit_scale":
        return torch.tensor(4.6052)
    if ".ln_" in f".{name}":
        return uniform(name, shape, 0.1, salt) + (1.0 if name.endswith("weight") else 0.0)
    if name.endswith("bias"):
        std = 0.02
    elif "in_proj_weight" in name:
        std = 1.5 * width**-0.5
    elif "out_proj" in name or "c_proj" in name:
        std = width**-0.5 * (2 * count) ** -0.5
    elif "c_fc" in name:
        std = (2 * width) ** -0.5
    elif name == "visual.conv1.weight":
        std = (shape[1] * shape[2] * shape[3]) ** -0.5
    else:
        std = {
            "token_embedding.weight": 0.5,
            "positional_embedding": 0.1,
            "visual.class_embedding": 0.5,
            "visual.positional_embedding": 0.5,
        }.get(name, width**-0.5)
    return uniform(name, shape, std, salt)


def reference_sizes(layers):
    """Return the sizes of a ViT-B/16 with another number of layers."""
    return CLIPConfig(224, 16, 768, layers, HEADS[0], 512, layers, HEADS[1], 512, 77, 49408)


def reference_clip(layers, salt=0):
    """Build a frozen CLIP of `reference_sizes` with the reference weights."""
    with torch.device("meta"):
        model = CLIP(reference_sizes(layers))
    state = {
        name: weight(name, value.shape, (768 if name.startswith("visual.") else 512, layers), salt)
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def reference_images(batch, salt=0):
    return uniform("images", (batch, 3, 224, 224), 1.0, salt)


def prompt_std(name):
    """Return the standard deviation of a learnable tensor."""
    return 0.05 if any(part in name for part in ("meta_net", "proj", "mlp", "attention")) else 0.3


def set_prompts(module, learnable, salt=0):
    """Copy the reference values of the learnable tensors into the module of a method: all of them, and no others."""
    parameters = dict(module.named_parameters())
    assert parameters.keys() == learnable.keys()
    with torch.no_grad():
        for name, shape in learnable.items():
            if name.endswith(("scale1", "scale2")):
                continue  # they keep their initial values
            value = uniform(name, shape, 0.1 if ".ln_" in name else prompt_std(name), salt)
            if ".ln_" in name and name.endswith("weight"):
                value += 1.0
            parameters[name].copy_(value.view_as(parameters[name]))


def options(module, **changes):
    """Return a method's settings: its defaults with some changes."""
    cfg = CfgNode({"TRAINER": {}})
    module.extend_cfg(cfg)
    (node,) = cfg.TRAINER.values()
    node.merge_from_list([word for pair in changes.items() for word in pair])
    return node
