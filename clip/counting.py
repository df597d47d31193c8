"""Counts floating-point operations where they happen: matrix products, attention, patch embedding.

Each call is counted by its shapes as the Python code makes it: forward when called, backward when its gradient arrives.
The count has no noise and does not depend on the release of torch, or on the library that computes the product. On a
CPU, what text blocks compute again in the backward pass counts as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from . import linear

Work = tuple[int, int]  # floating-point operations: forward, backward


def of_product(out: Tensor, x: Tensor, weight: Tensor, *_, **__) -> Work:
    """Count x (..., m, k) times a matrix: forward, and backward once for each factor that needs a gradient."""
    work = 2 * out.numel() * x.shape[-1]
    return work, work * (x.requires_grad + weight.requires_grad)


def of_convolution(out: Tensor, x: Tensor, weight: Tensor, *_, **__) -> Work:
    """Count a convolution: each output is a dot product with one filter."""
    work = 2 * out.numel() * weight[0].numel()
    return work, work * (x.requires_grad + weight.requires_grad)


def of_einsum(out: Tensor, equation: str, *factors: Tensor) -> Work:
    """Count one multiply-add for each combination of indices."""
    sizes: dict[str, int] = {}
    for names, x in zip(equation.split("->")[0].split(","), factors, strict=True):
        sizes |= dict(zip(names, x.shape, strict=True))
    work = 2 * math.prod(sizes.values())
    return work, work * sum(x.requires_grad for x in factors)


def of_attention(out: Tensor, queries: Tensor, keys: Tensor, *_, **__) -> Work:
    """Count two products forward (scores, sums of the values) and five backward, whichever gradients are needed.

    The fused kernels compute the scores again, and the gradients of values, weights, queries, and keys.
    """
    product = 2 * queries.numel() * keys.shape[-2]
    return 2 * product, 5 * product


def of_multi_head_attention(result, queries: Tensor, keys: Tensor, values: Tensor, *args, **__) -> Work:
    """Count maps of queries (m, N, width), keys, and values (n, N, width), attention, and the output map."""
    width, _, weight, *_, out_weight = args[:9]  # the operator's arguments, in order, up to the output weight
    read = (queries, keys, values)
    maps = sum(2 * x.numel() * width for x in read)
    maps_backward = sum(2 * x.numel() * width * (x.requires_grad + weight.requires_grad) for x in read)
    product, out = 2 * queries.numel() * len(keys), 2 * queries.numel() * width
    attended = any(x.requires_grad for x in (*read, weight))
    backward = maps_backward + 5 * product * attended + out * (attended + out_weight.requires_grad)
    return maps + 2 * product + out, backward


RULES: dict[Callable, Callable[..., Work]] = {
    F.linear: of_product,
    torch.matmul: of_product,
    Tensor.matmul: of_product,
    Tensor.__matmul__: of_product,
    torch.conv2d: of_convolution,
    F.conv2d: of_convolution,
    torch.einsum: of_einsum,
    F.scaled_dot_product_attention: of_attention,
    F.multi_head_attention_forward: of_multi_head_attention,
}
# Other ways to write a product: without a rule, a step that uses one fails instead of being counted too low.
WITHOUT_RULE = frozenset(
    "mm bmm mv addmm addbmm addmv baddbmm chain_matmul tensordot bilinear conv1d conv3d __rmatmul__".split()
)


class WorkCounter(TorchFunctionMode):
    """Counts inside its context.

    Attributes:
        total: floating-point operations so far, two per multiply-add.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in WITHOUT_RULE:
            raise NotImplementedError(f"{func.__name__}: expected a product with a rule. Add one to RULES.")
        out = func(*args, **(kwargs or {}))
        if func in RULES:
            forward, backward = RULES[func](out, *args, **(kwargs or {}))
            self._add(forward)
            result = out[0] if isinstance(out, tuple) else out
            if result.requires_grad:
                result.register_hook(lambda grad: self._add(backward))
        return out

    def _add(self, work: int) -> None:
        self.total += work


@contextmanager
def counting() -> Iterator[WorkCounter]:
    """Count what is computed inside. Frozen linear maps go through torch's own library, where they are seen."""
    before = linear.in_use()
    linear.use("torch")
    try:
        with WorkCounter() as counter:
            yield counter
    finally:
        linear.use(before)


def counted(loss: Callable[[], Tensor]) -> int:
    """Count the floating-point operations of a loss and its gradients."""
    with counting() as counter:
        torch.autograd.backward(loss())
    return counter.total
