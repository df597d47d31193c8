"""Optimizers and learning-rate schedules."""

from dassl.optim.lr_scheduler import ConstantWarmupScheduler, LinearWarmupScheduler, build_lr_scheduler
from dassl.optim.optimizer import build_optimizer

__all__ = ["ConstantWarmupScheduler", "LinearWarmupScheduler", "build_lr_scheduler", "build_optimizer"]
