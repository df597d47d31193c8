"""The training engine: trainers and their registry, checkpoints, and the record and folder of a run."""

from dassl.engine.build import TRAINER_REGISTRY, build_trainer, check_config, explain_run
from dassl.engine.failures import explain_failures
from dassl.engine.run_folder import fresh_folder, run_folder
from dassl.engine.trainer import SimpleTrainer, TrainerBase, TrainerX, device_of

__all__ = [
    "TRAINER_REGISTRY",
    "SimpleTrainer",
    "TrainerBase",
    "TrainerX",
    "build_trainer",
    "check_config",
    "device_of",
    "explain_failures",
    "explain_run",
    "fresh_folder",
    "run_folder",
]
