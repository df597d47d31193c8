"""Frozen linear maps on a CPU: computed by torch's own BLAS, or by oneDNN, whichever is faster on this machine.

Most of a step's time goes into multiplying by frozen weights in float32. Depending on the processor, oneDNN does that
up to twice as fast as the BLAS that `F.linear` uses. The two round differently, so one process uses one of them
throughout (`use`), a run records which, and a resumed run keeps it.

oneDNN is reached through the operator that torch's compiler generates for linear maps. It has no gradient of its own;
with a frozen weight the gradient is one more linear map, that of the input.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basics import UserError, cache_dir, notify, write_atomic

LIBRARIES = ("torch", "onednn")
ROUNDS = 7  # of timing both libraries in turn; the fastest counts
BATCH = 4  # texts and images that are timed
MARGIN = 1.1  # oneDNN must be this many times as fast, so that noise does not decide

_library = "torch"


def available() -> bool:
    """Return whether this torch release has the oneDNN operator."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def use(library: str) -> str:
    """Compute frozen linear maps with "torch" or "onednn" from now on. Returns the one in use.

    Where this torch release does not have the operator, "onednn" falls back to torch with a note.
    """
    global _library
    if library == "onednn" and not available():
        notify(
            f"MODEL.LINEAR onednn: torch {torch.__version__} does not have the operator on this machine; using torch"
        )
        library = "torch"
    _library = library
    return library


def in_use() -> str:
    """Return the library that computes frozen linear maps now."""
    return _library


class _OneDNNLinear(torch.autograd.Function):
    """x (..., in) -> x weight' + bias (..., out), for a frozen weight (out, in) and bias (out,) or None."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, grad: Tensor):
        (weight,) = ctx.saved_tensors
        return torch.ops.mkldnn._linear_pointwise(grad, weight.t(), None, "none", [], ""), None, None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `F.linear`, through oneDNN if that is in use and the map is frozen, in float32, and on the CPU."""
    if (
        _library == "onednn"
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not weight.requires_grad
        and (bias is None or not bias.requires_grad)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    ):
        return _OneDNNLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """A linear map of a tower."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def faster(towers: Iterable[tuple[int, int]]) -> str:
    """Return the faster library for float32 towers of these (tokens of a text or image, width) on this machine.

    Both are timed once per number of threads, for a few tenths of a second. The answer is kept in the cache folder, so
    that the runs of a comparison, one after another or at the same time, all get the same one.
    """
    towers = sorted(set(towers))
    machine = [_processor(), torch.__version__, torch.get_num_threads(), towers]
    path = cache_dir("linear", hashlib.sha256(repr(machine).encode()).hexdigest()[:16])
    for _ in range(2):
        if (answer := _read(path)) in LIBRARIES:
            return answer
        answer = _time(towers) if available() else "torch"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("x").close()  # the process that creates the file first decides for all
            write_atomic(path, answer.encode())
        except FileExistsError:
            time.sleep(0.1)
        except (OSError, UserError):  # no cache: this process decides for itself
            return answer
    return answer


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _processor() -> str:
    try:
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@torch.no_grad()
def _time(towers: Sequence[tuple[int, int]]) -> str:
    """Time one layer of each tower with both libraries in turn."""
    maps = []
    for tokens, width in towers:
        for out, into in ((3 * width, width), (width, width), (4 * width, width), (width, 4 * width)):
            maps.append((torch.ones(BATCH * tokens, into), torch.ones(out, into), torch.ones(out)))

    def seconds(library: str) -> float:
        use(library)
        start = time.perf_counter()
        for x, weight, bias in maps:
            linear(x, weight, bias)
        return time.perf_counter() - start

    before = _library
    try:
        rounds = [[seconds(library) for library in LIBRARIES] for _ in range(1 + ROUNDS)][1:]  # the first warms up
    finally:
        use(before)
    blas, onednn = (min(times) for times in zip(*rounds, strict=True))
    return "onednn" if blas > MARGIN * onednn else "torch"
