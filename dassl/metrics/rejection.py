"""Whether an image shows one of the known classes: scores, thresholds, and how well they separate unknown images.

Scores are higher for known images; an image is rejected if its score is below a threshold.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

KEPT = 0.95  # share of the known images that a threshold accepts


def max_softmax(logits: Tensor, temperature: float) -> Tensor:
    """The probability of the prediction (Hendrycks and Gimpel, 1610.02136)."""
    return (logits / temperature).softmax(dim=-1).amax(dim=-1)


def negative_energy(logits: Tensor, temperature: float) -> Tensor:
    """T logsumexp(logits / T), the negative of the energy (Liu et al., 2010.03759)."""
    return temperature * (logits / temperature).logsumexp(dim=-1)


RULES: dict[str, Callable[[Tensor, float], Tensor]] = {"max_softmax": max_softmax, "energy": negative_energy}


def fit_threshold(known: Tensor, kept: float = KEPT) -> float:
    """Return the highest threshold that accepts at least the share `kept` of the known images' scores (N,)."""
    accepted = math.ceil(kept * len(known))
    return float(known.sort(descending=True).values[accepted - 1])


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Return the probability that a known image scores higher than an unknown one, 0 to 1; ties count half.

    Args:
        known, unknown: scores, (N,) and (M,).
    """
    ordered = unknown.sort().values
    below, up_to = (torch.searchsorted(ordered, known, right=right).double() for right in (False, True))
    return float((below + up_to).sum() / (2 * len(known) * len(unknown)))


def measure_rejection(known: Tensor, unknown: Tensor) -> dict[str, float]:
    """Measure how well scores (N,) and (M,) separate known from unknown images.

    Returns:
        {"auroc": percent, "fpr95": percent of the unknown images that are accepted where 95 % of the known ones are,
        "threshold": where that is}.
    """
    threshold = fit_threshold(known)
    accepted = (unknown >= threshold).double().mean()
    return {"auroc": 100 * auroc(known, unknown), "fpr95": 100 * float(accepted), "threshold": threshold}
