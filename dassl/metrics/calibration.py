"""How well confidences match accuracies, and the temperature that makes them match better (Guo et al., 1706.04599)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

BINS = 15
LOWEST, HIGHEST = 0.01, 100.0  # temperatures that are considered
HALVINGS = 50  # of the interval; after that, only the last bits of a float64 would change


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> tuple[Tensor, Tensor, Tensor]:
    """Sum up predictions by confidence, in bins of equal width that include their upper edges.

    Args:
        confidence: probability of each predicted class, (N,), 0 to 1.
        correct: whether it is the true class, (N,).

    Returns:
        (bins,) each, float64: the number of predictions, the sum of their confidences, the number of correct ones.
    """
    confidence = confidence.double()
    index = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)

    def total(weights: Tensor) -> Tensor:
        return torch.bincount(index, weights, minlength=bins)

    return total(torch.ones_like(confidence)), total(confidence), total(correct.double())


def calibration_error(confidence: Tensor, correct: Tensor, bins: int = BINS) -> float | None:
    """Return the expected calibration error, 0 to 1: the mean over predictions of their bin's |accuracy - confidence|.

    None without predictions. Arguments as in `reliability`.
    """
    n, confidences, hits = reliability(confidence, correct, bins)
    return float((hits - confidences).abs().sum() / n.sum()) if len(confidence) else None


def measure_calibration(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> tuple[float, float | None]:
    """Return the mean negative log-likelihood (nats) and the calibration error (0 to 1) of softmax(logits / T).

    Args:
        logits: (N, C).
        labels: (N,) int64.
    """
    scaled = logits.double() / temperature
    confidence, predicted = scaled.softmax(dim=1).max(dim=1)
    return float(cross_entropy(scaled, labels)), calibration_error(confidence, predicted == labels)


def fit_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """Return the temperature T that minimizes the negative log-likelihood of softmax(logits / T).

    The likelihood is convex in 1/T, so its slope, mean(E_p[z] - z_y), changes its sign once, and bisection finds where.

    Args:
        logits: z, (N, C).
        labels: y, (N,) int64.

    Returns:
        T, or None if the minimum is not between LOWEST and HIGHEST: it is at 0 if all predictions are correct.
    """
    z = logits.double()
    true = z.gather(1, labels[:, None]).squeeze(1)

    def slope(inverse: float) -> float:
        return float(((inverse * z).softmax(dim=1).mul(z).sum(dim=1) - true).mean())

    low, high = 1 / HIGHEST, 1 / LOWEST
    if not slope(low) < 0 < slope(high):
        return None
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)
