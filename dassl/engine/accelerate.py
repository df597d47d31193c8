"""Optional wrappers that change how long a training step takes or how much memory it needs, not what it computes.

MODEL.COMPILE compiles the step, MODEL.CUDA_GRAPH replays it as a CUDA graph, and MODEL.TEXT_BLOCK limits how many class
texts keep their activations. A step maps (images, labels) to (loss, logits, parts of the loss by name); all but the
loss are detached.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from basics import UserError, notify
from dassl.engine import distributed
from dassl.utils import free_memory

Outputs = tuple[Tensor, Tensor, dict[str, Tensor]]
TrainStep = Callable[[Tensor, Tensor], Outputs]

TEXT_SHARE = 2  # class texts get one part in so many of the free memory; images and the optimizer get the rest
PROBED_CLASSES = 8  # classes whose memory is measured


def build_step(step: TrainStep, learner: nn.Module, options: CfgNode, device: torch.device, static: bool) -> TrainStep:
    """Return the step as the options request it: unchanged, compiled, captured, or both.

    Args:
        learner: the module whose parameters are trained.
        options: the node MODEL.
        static: whether the step is the same for all batches of a shape, so that a graph can replay it.
    """
    if distributed.size() > 1:
        return step  # processes meet inside it
    if options.COMPILE:
        step = CompiledStep(step, learner)
    if options.CUDA_GRAPH and static and device.type == "cuda":
        step = GraphedStep(step, learner)
    return step


@contextmanager
def keep_state(learner: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore torch's random streams and the buffers of what is trained on exit.

    So a trial step with dropout or batch norm changes nothing afterward.
    """
    buffers = [buffer.clone() for buffer in learner.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for buffer, before in zip(learner.buffers(), buffers, strict=True):
                buffer.copy_(before)


class CompiledStep:
    """A step compiled for fixed shapes; where that fails, the plain step, with a note.

    Args:
        learner: the module whose parameters are trained; the first call also tries the backward pass, which is compiled
            separately.
    """

    def __init__(self, step: TrainStep, learner: nn.Module):
        self.plain, self.learner = step, learner
        self.compiled: TrainStep | None = torch.compile(step, dynamic=False)
        self.tried = False

    def __call__(self, images: Tensor, labels: Tensor) -> Outputs:
        if not self.tried:
            self.tried = True
            self._try(images, labels)
        return (self.compiled or self.plain)(images, labels)

    def _try(self, images: Tensor, labels: Tensor) -> None:
        """Make one step and discard its gradients."""
        assert self.compiled is not None
        try:
            with keep_state(self.learner, images.device):
                loss, *_ = self.compiled(images, labels)
                torch.autograd.grad(loss, [p for p in self.learner.parameters() if p.requires_grad])
        except Exception as error:  # whatever the compiler fails on, the step works without it
            reason = " ".join(str(error).split("\n\n")[0].split())  # the rest is advice to its developers
            notify(
                f"MODEL.COMPILE: torch.compile failed; running the step uncompiled: {type(error).__name__}: {reason}"
            )
            self.compiled = None


class GraphedStep:
    """A step whose kernels are captured in the first call and replayed for every batch of the same shape.

    A step on a few images consists of some thousand kernels, and launching each one takes the CPU longer than running
    it takes the GPU. A graph launches the same kernels on the same numbers as a whole. Batches of another shape (the
    last one of an epoch) run the plain step; so do all, with a note, where the capture fails.

    Args:
        step: its kernels must be the same for all batches of a shape, and it must not read numbers from the GPU.
        learner: the module whose parameters are trained.
    """

    def __init__(self, step: TrainStep, learner: nn.Module):
        self.plain, self.learner = step, learner
        self.graphed: Callable[..., Any] | None = None
        self.shapes: tuple[torch.Size, torch.Size] | None = None  # the captured, or tried, shapes

    def __call__(self, images: Tensor, labels: Tensor) -> Outputs:
        shapes = images.shape, labels.shape
        if self.shapes is None:
            self.shapes = shapes
            self._capture(images, labels)
        if self.graphed is None or shapes != self.shapes:
            return self.plain(images, labels)
        loss, logits, parts = self.graphed(images, labels)
        # The next replay overwrites the graph's own tensors.
        return loss.clone(), logits.clone(), {name: part.clone() for name, part in parts.items()}

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        sample = images.clone(), labels.clone()  # the graph reads its batches from these tensors
        generator = torch.cuda.default_generators[images.device.index] if images.is_cuda else None
        intact = generator.clone_state() if generator else None
        gc.collect()  # a graph that is freed during a capture breaks it
        # torch warms up on one stream, captures on another, and notes that gradients change streams in between.
        warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match")
        try:
            with keep_state(self.learner, images.device), torch.autocast("cuda", dtype, enabled, cache_enabled=False):
                self.graphed = torch.cuda.make_graphed_callables(_OwningStep(self.plain, self.learner), sample)
        except Exception as error:  # whatever cannot be captured, the step works without a graph
            if generator and intact:  # torch leaves its random stream as if still captured
                generator.graphsafe_set_state(intact)
            reason = " ".join(str(error).split("\n")[0].split())
            notify(f"MODEL.CUDA_GRAPH: capturing failed; running the step uncaptured: {type(error).__name__}: {reason}")


class _OwningStep(nn.Module):
    """A step as a module that owns what it trains, so that torch finds the parameters that need gradients."""

    def __init__(self, step: TrainStep, learner: nn.Module):
        super().__init__()
        self.step, self.learner = step, learner

    def forward(self, images: Tensor, labels: Tensor) -> Outputs:
        # As without a graph, autocast casts a weight once per step, so that its gradients add up in the same precision.
        # The copies must not outlive the capture.
        caching = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(True)
        try:
            return self.step(images, labels)
        finally:
            torch.clear_autocast_cache()
            torch.set_autocast_cache_enabled(caching)


def check_text_block(setting: str) -> None:
    """Raise a UserError if MODEL.TEXT_BLOCK is neither auto nor a whole number from 0."""
    if setting != "auto" and not (setting.isascii() and setting.isdigit()):
        raise UserError(f"MODEL.TEXT_BLOCK: expected auto, 0 or a number of class texts, got {setting!r}.")


def pick_text_block(
    setting: str, compute: Callable[[slice], Tensor], n_classes: int, device: torch.device, texts: int = 1
) -> int:
    """Return how many class texts keep their activations at a time; 0 for all.

    Args:
        setting: MODEL.TEXT_BLOCK.
        compute: returns a training step's text features of some classes.
        texts: texts per class in a step.
    """
    if setting != "auto":
        return int(setting)
    probed = min(PROBED_CLASSES, n_classes // 2)
    # What is kept for any number of classes, such as weights, is part of both measurements and cancels out.
    per_class = 0
    if probed:
        per_class = (bytes_kept(compute, slice(0, 2 * probed)) - bytes_kept(compute, slice(0, probed))) // probed
    budget = free_memory(device) // TEXT_SHARE
    if per_class * n_classes <= budget:
        return 0
    size = texts * max(budget // per_class, 1)
    notify(
        f"MODEL.TEXT_BLOCK auto: {n_classes * texts} class texts would keep {n_classes * per_class / 2**30:.1f} GiB of "
        f"activations; they run {size} at a time and are computed again in the backward pass"
    )
    return size


@torch.enable_grad()
def bytes_kept(compute: Callable[[slice], Tensor], classes: slice) -> int:
    """Return how many bytes of memory the backward pass of some classes' features keeps."""
    kept = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        result = compute(classes)  # kept until the end of the count: freed addresses are reused
    del result
    return sum(kept.values())
