"""Losses that are infinite or NaN: by TRAIN.ON_NONFINITE the run stops, or leaves out so many steps at most."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from basics import NonFiniteLoss, UserError


@dataclass(frozen=True)
class Step:
    """A training step, for messages: epoch and batch from 0, the files of the batch, the parts of the loss."""

    epoch: int
    batch: int
    files: Sequence[str] = ()
    parts: Mapping[str, object] = field(default_factory=dict)

    def __str__(self):
        return f"epoch {self.epoch + 1}, batch {self.batch + 1}"


def allowed_steps(policy):
    """How many steps TRAIN.ON_NONFINITE allows to leave out: "stop" none, "skip:N" N.

    Raises:
        UserError: neither.
    """
    if policy == "stop":
        return 0
    if not re.fullmatch(r"skip:[1-9]\d*", policy):
        raise UserError(f'TRAIN.ON_NONFINITE: expected stop, or skip:N such as skip:3, found "{policy}"')
    return int(policy.removeprefix("skip:"))


class LossWatch:
    """Looks at each loss before its step is made.

    To look at once would make the CPU wait for the GPU at every step. On a GPU, a run that stops at the first bad loss
    looks one step late, when the answer is there already; `settle` catches up, before anything is saved.

    Args:
        allowed: steps that may be left out. They must not be made, so each loss is then looked at at once.

    Attributes:
        skipped: steps left out so far.
    """

    def __init__(self, allowed=0):
        self.allowed = allowed
        self.skipped = 0
        self._unseen = None  # the answer on its way, a _LateAnswer; the loss; its step

    def refuses(self, loss, step):
        """Whether the step must not be made because of its `loss` (a tensor), and is counted as left out.

        Raises:
            NonFiniteLoss: no more steps may be left out.
        """
        loss = loss.detach()
        finite = torch.isfinite(loss).all()
        if self._looks_late(loss):
            self.settle()
            self._unseen = _LateAnswer(finite), loss, step
            return False
        if finite:
            return False
        if self.skipped >= self.allowed:
            raise NonFiniteLoss(self._message(loss, step))
        self.skipped += 1
        print(f"Left out {step}, whose loss is infinite or NaN ({self.skipped} of {self.allowed}){_particulars(step)}")
        return True

    def _looks_late(self, loss):
        return loss.is_cuda and not self.allowed

    def settle(self):
        """Look at the loss that is still unseen.

        Raises:
            NonFiniteLoss: it was infinite or NaN.
        """
        unseen, self._unseen = self._unseen, None
        if unseen is not None and not unseen[0]:
            raise NonFiniteLoss(self._message(*unseen[1:]))

    def _message(self, loss, step):
        spent = f" {self.skipped} steps were left out before." if self.skipped else ""
        return (
            f"Loss is infinite or NaN! Found {loss.flatten().tolist()} in {step}.{spent} Nothing of it is saved. "
            "A smaller OPTIM.LR, a larger OPTIM.EPS (Adam) or full precision may help; TRAIN.ON_NONFINITE skip:N "
            f"leaves out up to N such steps.{_particulars(step)}"
        )


class _LateAnswer:
    """A tensor of one truth value, on its way from the GPU."""

    def __init__(self, answer):
        self.answer = answer.to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record()

    def __bool__(self):
        self.arrived.synchronize()  # waits for this answer alone, not for what the GPU was given to do since
        return bool(self.answer)


def _particulars(step):
    parts = "".join(f"\n{name}: {float(value)}" for name, value in step.parts.items())
    return parts + ("\nFiles of the batch:\n" + "\n".join(step.files) if step.files else "")
