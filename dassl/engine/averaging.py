"""Averages of trained tensors over the epochs of a run."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dassl.engine.checkpoints import snapshot


def gaussian_weights(epochs: int, mean: float, std: float) -> list[float]:
    """Return the densities of a normal distribution at the epochs 1, 2, ..., divided by their sum."""
    exponents = [-(((epoch - mean) / std) ** 2) / 2 for epoch in range(1, epochs + 1)]
    densities = [math.exp(exponent - max(exponents)) for exponent in exponents]
    return [density / sum(densities) for density in densities]


class EpochAverage:
    """A weighted sum of a module's trained tensors after each epoch.

    Attributes:
        weights: of the epochs, from the first on.
        sums: so far, by name, on the CPU; part of what a resumed run needs.
    """

    def __init__(self, weights: list[float]):
        self.weights, self.sums = weights, dict[str, Tensor]()

    def add(self, module: nn.Module, epoch: int) -> None:
        """Add the tensors after an epoch, counted from 0."""
        for name, tensor in snapshot(module).items():
            weighted = self.weights[epoch] * tensor
            self.sums[name] = self.sums[name] + weighted if name in self.sums else weighted

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Replace the module's trained tensors by the sums."""
        module.load_state_dict(self.sums, strict=False)
