"""Support for trainer files written for the original Dassl and CoOp, which run here unchanged.

Everything in this module exists for such files only: settings they read without declaring them, refusals by `assert`,
a `load_model` of their own, steps they make without the engine, and methods that only forks of Dassl have.
"""

import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from yacs.config import CfgNode

from basics import MissingFile, UserError
from dassl.config import Checks
from dassl.engine.checkpoints import last_epoch


def SummaryWriter(*args, **kwargs):
    """Create TensorBoard's class of the same name. It is imported on first use because TensorBoard is an extra.

    Raises:
        UserError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter as TensorBoardWriter
    except ImportError as error:
        raise UserError(
            "TRAIN.TENSORBOARD: expected TensorBoard, got no such package. Run pip install tensorboard, or set the key "
            "to False."
        ) from error
    return TensorBoardWriter(*args, **kwargs)


@contextmanager
def explain_undeclared_keys(cfg, trainer: type) -> Iterator[None]:
    """Turn the reading of a key that `cfg` does not have into a UserError that shows how to declare it.

    The original repositories declare such keys in their own train.py.
    """
    try:
        yield
    except AttributeError as error:
        if not isinstance(error.obj, CfgNode):
            raise
        key = ".".join([*_path_to(cfg, error.obj), str(error.name)])
        raise UserError(
            f"{key}: expected a declared key, got none; the trainer {cfg.TRAINER.NAME} ({trainer.__module__}) reads "
            "it. Original repositories declare such keys in their train.py. Declare it here in the trainer's file, or "
            "in any file next to it:\n"
            "def extend_cfg(cfg):\n"
            f"    cfg.{key} = ...  # the default value; a yacs.config.CfgNode if it has keys of its own"
        ) from error


def _path_to(cfg, node) -> list[str]:
    """Return the names that lead from `cfg` to `node` inside it; empty for a node of another config."""
    for name, child in cfg.items():
        if child is node:
            return [name]
        if isinstance(child, CfgNode) and (rest := _path_to(child, node)):
            return [name, *rest]
    return []


def run_check_cfg(trainer, cfg, checks: Checks) -> None:
    """Call `trainer.check_cfg(cfg)` and record a failed assertion, the family's way to refuse a config, in `checks`."""
    try:
        trainer.check_cfg(cfg)
    except AssertionError as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = str(error) or linecache.getline(frame.filename, frame.lineno or 0).strip()
        checks.problems.append(f"TRAINER.NAME: {cfg.TRAINER.NAME} refuses the config: {reason}")


def check_reported_losses(trainer, summary) -> None:
    """Check the losses that `forward_backward` returned, for a method that steps its optimizer without the engine.

    Raises:
        UserError: a loss is infinite or NaN, and the step on it can no longer be skipped; or an option of the
            engine's steps is set.
    """
    if trainer.clip_norm or trainer.accumulate > 1:
        raise UserError(
            f"OPTIM.CLIP_NORM, OPTIM.ACCUMULATE: expected 0 and 1, because {trainer.cfg.TRAINER.NAME} steps its "
            f"optimizer itself, got {trainer.clip_norm} and {trainer.accumulate}. Leave them out."
        )
    losses = [torch.as_tensor(value) for name, value in (summary or {}).items() if "loss" in name]
    if any(trainer.detect_anomaly(loss) for loss in losses):
        raise UserError(
            f"TRAIN.ON_NONFINITE: expected stop, got {trainer.cfg.TRAIN.ON_NONFINITE}; {trainer.cfg.TRAINER.NAME} "
            "steps its optimizer itself, so a step on an infinite or NaN loss cannot be skipped. Set the key to stop."
        )


def load_model(trainer, directory, epoch=None):
    """Call `trainer.load_model`, which may be a trainer file's own, and return the epoch that was loaded, or None.

    Such methods look for nothing but the best checkpoint when no epoch is given, and return nothing.

    Raises:
        MissingFile: there is no such checkpoint.
        UserError: it is damaged or does not fit.
    """
    if directory and epoch is None:
        epoch = last_epoch(directory, trainer.get_model_names())
    try:
        return trainer.load_model(directory, epoch=epoch) or epoch
    except FileNotFoundError as error:
        raise MissingFile(str(error)) from error


def remove_opposing(parameters, directions, lambda_=1):
    """Subtract `lambda_` times the part of each parameter's gradient that opposes its direction, for ProGrad."""
    for parameter, direction in zip(parameters, directions, strict=True):
        unit = nn.functional.normalize(direction.flatten(), dim=0).view_as(direction)
        opposing = (parameter.grad * unit).sum().clamp(max=0)
        parameter.grad -= lambda_ * opposing * unit


def prograd_backward_and_update(trainer, loss_a, loss_b, lambda_=1, names=None):
    """Make ProGrad's step (Zhu et al., Prompt-aligned Gradient for Prompt Tuning, ICCV 2023); a method of its fork.

    It follows the gradient of `loss_a` minus `lambda_` times the part that opposes the gradient of `loss_b`, for each
    parameter separately.

    Raises:
        UserError: OPTIM.ACCUMULATE is set; the rule is about the gradients of one batch.
    """
    if trainer.accumulate > 1:
        raise UserError(
            f"OPTIM.ACCUMULATE: expected 1 with {trainer.cfg.TRAINER.NAME}, which changes the gradients of each batch, "
            f"got {trainer.accumulate}. Use larger batches."
        )
    names = trainer.get_model_names(names)
    parameters = [p for name in names for p in trainer._models[name].parameters() if p.requires_grad]
    if trainer.detect_anomaly(loss_b):
        return
    general = torch.autograd.grad(loss_b, parameters, retain_graph=True)
    trainer.model_zero_grad(names)
    trainer.model_backward(loss_a)
    if trainer.step_skipped:
        return
    remove_opposing(parameters, general, lambda_)
    trainer.model_update(names)
