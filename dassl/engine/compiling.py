"""The training step through torch.compile (MODEL.COMPILE)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class CompiledStep:
    """A loss (images, labels) -> (loss, logits), compiled for fixed shapes; where that fails, as it is, with a note.

    Args:
        parameters: what is trained: the first call tries the backward pass too, which is compiled by itself.
    """

    def __init__(self, step: Step, parameters: Iterable[nn.Parameter]):
        self.plain, self.compiled, self.tried = step, torch.compile(step, dynamic=False), False
        self.parameters = [p for p in parameters if p.requires_grad]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.tried:
            self.tried = True
            self._try(images, labels)
        return (self.plain if self.compiled is None else self.compiled)(images, labels)

    def _try(self, images: Tensor, labels: Tensor) -> None:
        """One step whose gradients are thrown away."""
        try:
            with torch.random.fork_rng():  # what dropout draws here is drawn again
                loss, _ = self.compiled(images, labels)
                torch.autograd.grad(loss, self.parameters)
        except Exception as error:  # whatever the compiler stumbles over, the step does not need it
            reason = " ".join(str(error).split("\n\n")[0].split())  # what follows is advice to its developers
            print(f"MODEL.COMPILE: torch.compile failed, the step runs uncompiled: {type(error).__name__}: {reason}")
            self.compiled = None
