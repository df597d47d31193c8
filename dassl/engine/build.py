"""Trainers by name."""

from contextlib import AbstractContextManager

from basics import log, notify
from dassl.engine.checks import check_method, check_names, check_values
from dassl.engine.compat import OnCPU, explain_foreign_errors, explain_undeclared_keys
from dassl.engine.trainer import device_of
from dassl.utils import Registry, file_of, keep_freed_memory

TRAINER_REGISTRY = Registry(
    "TRAINER", lambda trainer: trainer.__module__.startswith("trainers.") and trainer.for_this_engine
)


def check_config(cfg) -> list[str]:
    """Return what is wrong with a config, one line per mistake, without reading data or loading weights.

    It checks names, the values of the engine's keys, and the method's requirements on its settings and its backbone.
    """
    problems = check_names(cfg, TRAINER_REGISTRY) + check_values(cfg)
    if cfg.TRAINER.NAME in TRAINER_REGISTRY.registered_names():
        trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
        with explain_foreign_errors(cfg, trainer):
            problems += check_method(cfg, trainer.__new__(trainer))  # check_cfg is called before anything else exists
    return list(dict.fromkeys(problems))


def build_trainer(cfg):
    """Return the trainer that `cfg.TRAINER.NAME` names, with its data and its model.

    Raises:
        UserError: the config is wrong; among other mistakes, the trainer reads a key that it does not have.
    """
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        log(f"Loading trainer: {cfg.TRAINER.NAME}")
        if built_in := TRAINER_REGISTRY.replaced(cfg.TRAINER.NAME):
            notify(f"Note: {cfg.TRAINER.NAME} is that of {file_of(trainer)}, and not that of {file_of(built_in)}")
    keep_freed_memory()
    with explain_undeclared_keys(cfg, trainer):
        if trainer.for_this_engine or device_of(cfg).type != "cpu":
            return trainer(cfg)
        return OnCPU(cfg.TRAINER.NAME).build(trainer, cfg)


def explain_run(cfg) -> AbstractContextManager[None]:
    """Explain what the file of the run's trainer raises inside, if it is not of this project."""
    return explain_foreign_errors(cfg, TRAINER_REGISTRY.get(cfg.TRAINER.NAME))
