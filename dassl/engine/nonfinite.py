"""Losses that are infinite or NaN: TRAIN.ON_NONFINITE stops the run or skips a limited number of such steps."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from basics import NonFiniteLoss, UserError, notify


@dataclass(frozen=True)
class StepInfo:
    """A training step, for messages: epoch and batch (from 0), the files of the batch, the parts of the loss."""

    epoch: int
    batch: int
    files: Sequence[str] = ()
    parts: Mapping[str, float | Tensor] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}, batch {self.batch + 1}"

    def details(self) -> str:
        parts = "".join(f"\n{name}: {float(value)}" for name, value in self.parts.items())
        return parts + ("\nFiles of the batch:\n" + "\n".join(self.files) if self.files else "")


def allowed_steps(policy: str) -> int:
    """Return how many steps TRAIN.ON_NONFINITE allows to skip: 0 for "stop", N for "skip:N".

    Raises:
        UserError: it is neither.
    """
    if policy == "stop":
        return 0
    if not re.fullmatch(r"skip:[1-9]\d*", policy):
        raise UserError(f'TRAIN.ON_NONFINITE: expected stop, or skip:N such as skip:3, got "{policy}".')
    return int(policy.removeprefix("skip:"))


class LossWatch:
    """Check each loss before its step is made.

    An immediate check would make the CPU wait for the GPU in every step. On a GPU, a run that stops at the first bad
    loss therefore checks one step late, when the result has already arrived; `settle` catches up before anything is
    saved.

    Args:
        allowed: how many steps may be skipped. If any may, each loss is checked immediately.

    Attributes:
        skipped: steps skipped so far.
    """

    def __init__(self, allowed: int = 0):
        self.allowed = allowed
        self.skipped = 0
        self._pending: tuple[_DelayedBool, Tensor, StepInfo] | None = None  # whether it is finite; the loss; its step

    def refuses(self, loss: Tensor, step: StepInfo) -> bool:
        """Return whether the step on `loss` must be skipped, and count it.

        Raises:
            NonFiniteLoss: no more steps may be skipped.
        """
        loss = loss.detach()
        finite = torch.isfinite(loss).all()
        if self._checks_late(loss):
            self.settle()
            self._pending = _DelayedBool(finite), loss, step
            return False
        if finite:
            return False
        if self.skipped >= self.allowed:
            raise NonFiniteLoss(self._message(loss, step))
        self.skipped += 1
        notify(f"Skipped {step}: its loss is infinite or NaN ({self.skipped} of {self.allowed}){step.details()}")
        return True

    def _checks_late(self, loss: Tensor) -> bool:
        return loss.is_cuda and not self.allowed

    def settle(self) -> None:
        """Check the loss that is still pending.

        Raises:
            NonFiniteLoss: it is infinite or NaN.
        """
        pending, self._pending = self._pending, None
        if pending is not None and not pending[0]:
            raise NonFiniteLoss(self._message(*pending[1:]))

    def _message(self, loss: Tensor, step: StepInfo) -> str:
        skipped = f" {self.skipped} steps were skipped before." if self.skipped else ""
        return (
            f"Loss is infinite or NaN! Got {loss.flatten().tolist()} in {step}.{skipped} The step was not saved. "
            "Try a smaller OPTIM.LR, a larger OPTIM.EPS (Adam) or full precision; TRAIN.ON_NONFINITE skip:N skips up "
            f"to N such steps.{step.details()}"
        )


class _DelayedBool:
    """A one-element boolean tensor on its way from the GPU."""

    def __init__(self, value: Tensor):
        self.value = value.to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record()

    def __bool__(self) -> bool:
        self.arrived.synchronize()  # waits for this value alone, not for work submitted later
        return bool(self.value)
