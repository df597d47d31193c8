"""The training step made faster as it stands: compiled (MODEL.COMPILE), captured as a CUDA graph (MODEL.CUDA_GRAPH).

A step is (images, labels) -> (loss, logits, parts of the loss by name); all but the loss are detached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

Outputs = tuple[Tensor, Tensor, dict[str, Tensor]]
Step = Callable[[Tensor, Tensor], Outputs]


def build_step(step: Step, learner: nn.Module, options: CfgNode, device: torch.device) -> Step:
    """A step as the options (MODEL) want it: as it is, compiled, captured, or both.

    Args:
        learner: the module whose parameters are trained.
    """
    if options.COMPILE:
        step = CompiledStep(step, learner.parameters())
    if options.CUDA_GRAPH and device.type == "cuda":
        step = GraphedStep(step, learner)
    elif options.CUDA_GRAPH:
        print(f"MODEL.CUDA_GRAPH: there is nothing to capture on a {device.type}, the step runs as it is")
    return step


def drawn_again(device: torch.device) -> AbstractContextManager:
    """What is drawn inside (by dropout, in a step that is only tried) is drawn again afterwards."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


class CompiledStep:
    """A step compiled for fixed shapes; where that fails, as it is, with a note.

    Args:
        parameters: what is trained: the first call tries the backward pass too, which is compiled by itself.
    """

    def __init__(self, step: Step, parameters: Iterable[nn.Parameter]):
        self.plain, self.compiled, self.tried = step, torch.compile(step, dynamic=False), False
        self.parameters = [p for p in parameters if p.requires_grad]

    def __call__(self, images: Tensor, labels: Tensor) -> Outputs:
        if not self.tried:
            self.tried = True
            self._try(images, labels)
        return (self.plain if self.compiled is None else self.compiled)(images, labels)

    def _try(self, images: Tensor, labels: Tensor) -> None:
        """One step whose gradients are thrown away."""
        try:
            with drawn_again(images.device):
                loss, *_ = self.compiled(images, labels)
                torch.autograd.grad(loss, self.parameters)
        except Exception as error:  # whatever the compiler stumbles over, the step does not need it
            reason = " ".join(str(error).split("\n\n")[0].split())  # what follows is advice to its developers
            print(f"MODEL.COMPILE: torch.compile failed, the step runs uncompiled: {type(error).__name__}: {reason}")
            self.compiled = None


class GraphedStep:
    """A step whose kernels are captured at the first call and replayed for every batch of that shape.

    A step on a few images is some thousand kernels, and to launch each takes the CPU longer than the GPU needs to run
    it. A graph is launched as a whole: the same kernels on the same numbers. Batches of another shape (an epoch's last)
    run as they are; so do all, with a note, where the capture fails.

    Args:
        step: its kernels must be the same for all batches of a shape, and it must not read numbers off the GPU.
        learner: the module whose parameters are trained.
    """

    def __init__(self, step: Step, learner: nn.Module):
        self.plain, self.learner = step, learner
        self.graphed: Step | None = None
        self.shapes: tuple[torch.Size, torch.Size] | None = None  # that were captured, or tried

    def __call__(self, images: Tensor, labels: Tensor) -> Outputs:
        shapes = images.shape, labels.shape
        if self.shapes is None:
            self.shapes = shapes
            self._capture(images, labels)
        if self.graphed is None or shapes != self.shapes:
            return self.plain(images, labels)
        loss, logits, parts = self.graphed(images, labels)
        # The next replay writes over the graph's own tensors.
        return loss.clone(), logits.clone(), {name: part.clone() for name, part in parts.items()}

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        autocast = {"dtype": torch.get_autocast_dtype("cuda"), "enabled": torch.is_autocast_enabled("cuda")}
        sample = images.clone(), labels.clone()  # where the graph reads its batch
        try:
            # Weights that autocast has cast must not outlive the capture.
            with drawn_again(images.device), torch.autocast("cuda", cache_enabled=False, **autocast):
                self.graphed = torch.cuda.make_graphed_callables(_Owning(self.plain, self.learner), sample)
        except Exception as error:  # whatever cannot be captured, the step does not need it
            reason = " ".join(str(error).split("\n")[0].split())
            print(f"MODEL.CUDA_GRAPH: capturing failed, the step runs as it is: {type(error).__name__}: {reason}")


class _Owning(nn.Module):
    """A step as the module that owns what it trains: so torch finds what to give gradients to."""

    def __init__(self, step: Step, learner: nn.Module):
        super().__init__()
        self.step, self.learner = step, learner

    def forward(self, images: Tensor, labels: Tensor) -> Outputs:
        return self.step(images, labels)
