"""The cross-entropy of a training step and the options that change it: label smoothing, class weights, mixed images."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2
from yacs.config import CfgNode

CLASS_WEIGHTS = ("none", "balanced")


class CrossEntropy:
    """The mean cross-entropy of logits (B, C) and targets: labels (B,), or shares of the classes (B, C).

    Args:
        smoothing: TRAIN.LABEL_SMOOTHING.
        weights: of the classes, (C,); None for equal ones.

    Attributes:
        used: whether it has been called.
    """

    def __init__(self, smoothing: float = 0.0, weights: Tensor | None = None):
        self.smoothing, self.weights = smoothing, weights
        self.used = False

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.used = True
        return F.cross_entropy(logits.float(), targets, weight=self.weights, label_smoothing=self.smoothing)


def balanced_weights(labels: Sequence[int], n_classes: int) -> Tensor:
    """Return weights (C,) inverse to the classes' numbers of images, whose mean over the images is 1.

    A class without images has the weight 0.
    """
    counts = torch.tensor(labels).bincount(minlength=n_classes)
    weights = len(labels) / (counts.clamp(min=1) * counts.count_nonzero())
    return weights * (counts > 0)


def build_mixing(options: CfgNode, n_classes: int) -> Callable | None:
    """Return a function that mixes images (B, 3, H, W) and labels (B,) into images and targets (B, C); None if off.

    Args:
        options: the node TRAIN.
    """
    kinds = ((v2.MixUp, options.MIXUP), (v2.CutMix, options.CUTMIX))
    chosen = [kind(alpha=alpha, num_classes=n_classes) for kind, alpha in kinds if alpha > 0]
    return v2.RandomChoice(chosen) if chosen else None
