"""How many class texts a training step keeps at a time (MODEL.TEXT_BLOCK)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from basics import UserError
from dassl.utils import free_memory

SHARE = 2  # of the free memory one part in so many is for the texts; the rest is left to images and the optimiser
PROBE = 8  # classes that are measured


def check_text_block(setting: str) -> None:
    """Refuse a MODEL.TEXT_BLOCK that is neither auto nor a number from 0 on."""
    if setting != "auto" and not (setting.isascii() and setting.isdigit()):
        raise UserError(f"MODEL.TEXT_BLOCK: expected auto, 0 or a number of class texts, found {setting!r}")


def pick_text_block(
    setting: str, compute: Callable[[slice], Tensor], n_classes: int, device: torch.device, texts: int = 1
) -> int:
    """The number of class texts whose activations are kept at a time; 0: all.

    Args:
        setting: MODEL.TEXT_BLOCK.
        compute: a training step's text features of some classes.
        texts: how many each class has in a step.
    """
    if setting != "auto":
        return int(setting)
    probe = min(PROBE, n_classes // 2)
    # What is kept whatever the number of classes, such as weights, is in both and falls out.
    each = (bytes_kept(compute, slice(0, 2 * probe)) - bytes_kept(compute, slice(0, probe))) // probe if probe else 0
    budget = free_memory(device) // SHARE
    if each * n_classes <= budget:
        return 0
    block = texts * max(budget // each, 1)
    print(
        f"MODEL.TEXT_BLOCK auto: {n_classes * texts} class texts would keep {n_classes * each / 2**30:.1f} GiB of "
        f"activations; they run in blocks of {block} and are computed again in the backward pass"
    )
    return block


@torch.enable_grad()
def bytes_kept(compute: Callable[[slice], Tensor], classes: slice) -> int:
    """Memory that the backward pass of some classes' features keeps, in bytes."""
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = compute(classes)  # kept until all is counted: a freed address may come again
    del result
    return sum(kept.values())
