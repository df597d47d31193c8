"""The training engine: trainers, their registry, checkpoints and results."""

from dassl.engine.build import TRAINER_REGISTRY, build_trainer, check
from dassl.engine.trainer import SimpleTrainer, TrainerBase, TrainerX, device_of

__all__ = ["TRAINER_REGISTRY", "SimpleTrainer", "TrainerBase", "TrainerX", "build_trainer", "check", "device_of"]
