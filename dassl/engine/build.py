"""Trainers by name."""

from collections.abc import Iterator
from contextlib import contextmanager

from yacs.config import CfgNode

from basics import UserError
from dassl.engine.checks import check_method, check_names, check_values
from dassl.utils import Registry, keep_freed_memory

TRAINER_REGISTRY = Registry("TRAINER")


def check_config(cfg) -> list[str]:
    """What is wrong with a configuration, one line each; nothing is read and no weight is loaded.

    Names, the engine's values, and what the method says of its settings and its backbone.
    """
    problems = check_names(cfg, TRAINER_REGISTRY) + check_values(cfg)
    if cfg.TRAINER.NAME in TRAINER_REGISTRY.registered_names():
        trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
        with _declared_keys(cfg, trainer):
            problems += check_method(cfg, trainer.__new__(trainer))  # asked before anything of it is there
    return list(dict.fromkeys(problems))


def build_trainer(cfg):
    """The trainer that `cfg.TRAINER.NAME` names, with its data and its model.

    Raises:
        UserError: among others, if the trainer reads a key that the configuration does not have.
    """
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        print(f"Loading trainer: {cfg.TRAINER.NAME}")
    keep_freed_memory()
    with _declared_keys(cfg, trainer):
        return trainer(cfg)


@contextmanager
def _declared_keys(cfg, trainer) -> Iterator[None]:
    """Inside, a key that the configuration does not have is a UserError that says how to declare it."""
    try:
        yield
    except AttributeError as error:
        if not isinstance(error.obj, CfgNode):
            raise
        key = ".".join([*_path(cfg, error.obj), error.name])
        raise UserError(
            f"the trainer {cfg.TRAINER.NAME} ({trainer.__module__}) reads {key}, which nobody declares. Trainer files "
            f"written elsewhere leave that to their train.py; here, declare it in a function of that file, or of any "
            f"other beside it:\n"
            f"def extend_cfg(cfg):\n"
            f"    cfg.{key} = ...  # the default; for keys with further keys below, a yacs.config.CfgNode"
        ) from error


def _path(cfg, node):
    """The names that lead from `cfg` to `node`, one of the nodes in it; empty if it is another configuration's."""
    for name, child in cfg.items():
        if child is node:
            return [name]
        if isinstance(child, CfgNode) and (below := _path(child, node)):
            return [name, *below]
    return []
