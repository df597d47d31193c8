"""Trainers by name."""

from basics import log
from dassl.engine.checks import check_method, check_names, check_values
from dassl.engine.compat import explain_undeclared_keys
from dassl.utils import Registry, keep_freed_memory

TRAINER_REGISTRY = Registry("TRAINER")


def check_config(cfg) -> list[str]:
    """Return what is wrong with a config, one line per mistake, without reading data or loading weights.

    It checks names, the values of the engine's keys, and the method's requirements on its settings and its backbone.
    """
    problems = check_names(cfg, TRAINER_REGISTRY) + check_values(cfg)
    if cfg.TRAINER.NAME in TRAINER_REGISTRY.registered_names():
        trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
        with explain_undeclared_keys(cfg, trainer):
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
    keep_freed_memory()
    with explain_undeclared_keys(cfg, trainer):
        return trainer(cfg)
