"""Counts the floating-point operations of a step where they happen: matrix products, attention, patch embedding.

Calls are counted by their shapes as the Python code makes them, forward when called and backward when the gradient
arrives. How a release of torch, or oneDNN, computes them makes no difference, and there is no noise. What text blocks
compute again in the backward pass is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from clip import linear


def of_product(out: Tensor, x: Tensor, weight: Tensor, *_, **__) -> tuple[int, int]:
    """x (..., m, k) times a matrix: forward, and backward once for each factor that needs a gradient."""
    work = 2 * out.numel() * x.shape[-1]
    return work, work * (x.requires_grad + weight.requires_grad)


def of_convolution(out: Tensor, x: Tensor, weight: Tensor, *_, **__) -> tuple[int, int]:
    """Each output is a dot product with one filter."""
    work = 2 * out.numel() * weight[0].numel()
    return work, work * (x.requires_grad + weight.requires_grad)


def of_einsum(out: Tensor, equation: str, *factors: Tensor) -> tuple[int, int]:
    """One multiply-add for each combination of indices."""
    sizes = {}
    for names, x in zip(equation.split("->")[0].split(","), factors, strict=True):
        sizes |= dict(zip(names, x.shape, strict=True))
    work = 2 * math.prod(sizes.values())
    return work, work * sum(x.requires_grad for x in factors)


def of_attention(out: Tensor, queries: Tensor, keys: Tensor, *_, **__) -> tuple[int, int]:
    """Two products forward: scores and their average of the values. Backward the fused kernels compute the scores
    again, and the gradients of values, weights, queries, and keys, whichever of them are needed: five products."""
    product = 2 * queries.numel() * keys.shape[-2]
    return 2 * product, 5 * product


RULES: dict[Callable, Callable[..., tuple[int, int]]] = {
    F.linear: of_product,
    torch.matmul: of_product,
    Tensor.matmul: of_product,
    Tensor.__matmul__: of_product,
    torch.conv2d: of_convolution,
    F.conv2d: of_convolution,
    torch.einsum: of_einsum,
    F.scaled_dot_product_attention: of_attention,
}


class WorkCounter(TorchFunctionMode):
    """Counts inside its context.

    Attributes:
        total: floating-point operations so far, two per multiply-add.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in RULES:
            forward, backward = RULES[func](out, *args, **(kwargs or {}))
            self._add(forward)
            if out.requires_grad:
                out.register_hook(lambda grad: self._add(backward))
        return out

    def _add(self, work: int) -> None:
        self.total += work


def counted(loss: Callable[[], Tensor]) -> int:
    """Floating-point operations of a loss and its gradients."""
    before = linear.in_use()
    linear.use("torch")  # the same maps of the same shapes, but as calls that the counter sees
    try:
        with WorkCounter() as counter:
            torch.autograd.backward(loss())
    finally:
        linear.use(before)
    return counter.total
