"""Learning-rate schedules: torch's, with a warm-up before them."""

import warnings

from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR

from basics import UserError

SCHEDULERS = ("single_step", "multi_step", "cosine")
WARMUPS = ("linear", "constant")


class WarmupScheduler(LRScheduler):
    """Its own rates for the first `warmup_epoch` epochs, then those of `successor`, which starts only then.

    Its state consists of plain numbers: the successor is saved as its own state, and loading leaves it attached to the
    current optimizer.
    """

    def __init__(self, optimizer, successor, warmup_epoch):
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer)

    def warmup_lr(self):
        """Return the rate of each parameter group in epoch `self.last_epoch` (counted from 0, below `warmup_epoch`)."""
        raise NotImplementedError

    def get_lr(self):
        return self.warmup_lr() if self.last_epoch < self.warmup_epoch else self.successor.get_last_lr()

    def step(self, epoch=None):
        # The step that ends the warm-up only switches to the successor's first rate.
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step()
        super().step(epoch)

    def state_dict(self):
        return {**super().state_dict(), "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict):
        state = dict(state_dict)
        self.successor.load_state_dict(state.pop("successor"))
        super().load_state_dict(state)


class ConstantWarmupScheduler(WarmupScheduler):
    """`cons_lr` for all parameter groups."""

    def __init__(self, optimizer, successor, warmup_epoch, cons_lr):
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch)

    def warmup_lr(self):
        return [self.cons_lr] * len(self.base_lrs)


class LinearWarmupScheduler(WarmupScheduler):
    """`min_lr` in the first epoch, then epoch / warmup_epoch of each group's rate."""

    def __init__(self, optimizer, successor, warmup_epoch, min_lr):
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch)

    def warmup_lr(self):
        if self.last_epoch == 0:
            return [self.min_lr] * len(self.base_lrs)
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer, optim_cfg):
    """Return the schedule that `optim_cfg` describes, to be stepped once per epoch.

    Its length is MAX_EPOCH with or without a warm-up: after a warm-up of W epochs, the rate of epoch e >= W is that of
    epoch e - W of the schedule, and a cosine stops W epochs before it reaches zero.

    Raises:
        UserError: unknown LR_SCHEDULER or WARMUP_TYPE, or a STEPSIZE that does not fit.
    """
    name, steps, max_epoch = optim_cfg.LR_SCHEDULER, optim_cfg.STEPSIZE, optim_cfg.MAX_EPOCH
    if name not in SCHEDULERS:
        raise UserError(f"OPTIM.LR_SCHEDULER: expected one of {', '.join(SCHEDULERS)}, got {name!r}.")
    warmup = optim_cfg.WARMUP_EPOCH
    if warmup > 0 and optim_cfg.WARMUP_TYPE not in WARMUPS:
        raise UserError(f"OPTIM.WARMUP_TYPE: expected one of {', '.join(WARMUPS)}, got {optim_cfg.WARMUP_TYPE!r}.")
    if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        warnings.warn(
            "this optimizer already has a learning-rate schedule; two schedules overwrite each other's rates",
            stacklevel=2,
        )

    scheduler: LRScheduler
    if name == "cosine":
        # A float, as in the original.
        scheduler = CosineAnnealingLR(optimizer, T_max=float(max_epoch))  # type: ignore[arg-type]
    elif name == "single_step":
        step = steps[-1] if isinstance(steps, list | tuple) else steps
        scheduler = StepLR(optimizer, step_size=step if step > 0 else max_epoch, gamma=optim_cfg.GAMMA)
    elif isinstance(steps, list | tuple):
        scheduler = MultiStepLR(optimizer, milestones=list(steps), gamma=optim_cfg.GAMMA)
    else:
        raise UserError(f"OPTIM.STEPSIZE: expected a list of epochs for multi_step, got {steps!r}.")

    if warmup <= 0:
        return scheduler
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = warmup
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, warmup, optim_cfg.WARMUP_CONS_LR)
    return LinearWarmupScheduler(optimizer, scheduler, warmup, optim_cfg.WARMUP_MIN_LR)
