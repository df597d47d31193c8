"""The search for the settings that are most accurate on the validation images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from torch import Tensor

from dassl.metrics import compute_accuracy

Settings = TypeVar("Settings")


def grid_values(lowest: float, largest: float, steps: int) -> list[float]:
    """Return `steps` evenly spaced numbers from `lowest` on, without `largest`."""
    return [lowest + i * (largest - lowest) / steps for i in range(steps)]


def most_accurate(candidates: Iterable[tuple[Settings, Tensor]], labels: Tensor) -> tuple[Settings, float]:
    """Return the settings of the highest accuracy, the first of equal ones, and this accuracy in %.

    Args:
        candidates: settings, and the logits (B, C) that they lead to; at least one.
        labels: (B,).
    """
    accuracies = ((settings, compute_accuracy(logits, labels)[0].item()) for settings, logits in candidates)
    return max(accuracies, key=lambda found: found[1])
