"""Accuracy of a batch."""

import torch


@torch.no_grad()
def compute_accuracy(output, target, topk=(1,)):
    """Return the share of the batch whose class is among the k highest logits.

    Args:
        output: logits (B, C), or a tuple or list with the logits as its first element.
        target: labels (B,), int64.
        topk: the values of k.

    Returns:
        A list with one tensor (1,) per k, in percent.
    """
    if isinstance(output, tuple | list):
        output = output[0]
    ranked = output.topk(max(topk), dim=1).indices
    hits = ranked == target[:, None]
    return [hits[:, :k].any(dim=1).float().mean().mul(100).reshape(1) for k in topk]
