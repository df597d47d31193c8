"""Support for trainer files written for the original Dassl and CoOp, which run here unchanged.

Everything in this module exists for such files only: settings they read without declaring them, refusals by `assert`,
errors of their own, calls of `.cuda()` without a GPU, a `load_model` of their own, steps they make without the engine,
and methods that only forks of Dassl have.
"""

import linecache
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from yacs.config import CfgNode

from basics import MissingFile, UserError, notify
from basics.foreign import is_foreign, without_private_names
from dassl.config import Checks
from dassl.engine.checkpoints import last_epoch
from dassl.utils import file_of

WHOLE_TRACEBACK = "DASSL_TRACEBACK"  # environment variable: if set, errors of trainer files come with their traceback


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
            f"{key}: expected a declared key, got none; the trainer {cfg.TRAINER.NAME} ({file_of(trainer)}) reads "
            "it. Original repositories declare such keys in their train.py. Declare it here in the trainer's file, or "
            "in any file next to it:\n"
            "def extend_cfg(cfg):\n"
            f"    cfg.{key} = ...  # the default value; a yacs.config.CfgNode if it has keys of its own"
        ) from error


@contextmanager
def explain_foreign_errors(cfg, trainer) -> Iterator[None]:
    """Turn what a file that is not of this project raises into a UserError with the file, the line, and advice."""
    try:
        with explain_undeclared_keys(cfg, trainer):
            yield
    except (UserError, BrokenPipeError):
        raise
    except Exception as error:
        modules = [] if trainer.for_this_engine else [each.__module__ for each in trainer.__mro__]
        own = [name for name in modules if not name.startswith("dassl.")]
        frames = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if is_foreign(name := frame.f_globals.get("__name__", "")) or name in own
        ]
        if not frames:
            raise
        if os.environ.get(WHOLE_TRACEBACK):
            traceback.print_exception(error)
        file, line = frames[-1]
        what = without_private_names((str(error).strip() or "no message").splitlines()[0])
        raise UserError(
            f"{os.path.relpath(file)}:{line}: expected the trainer {cfg.TRAINER.NAME} to run with these settings, got "
            f"{type(error).__name__}: {what}, at `{linecache.getline(file, line).strip()}`. {_advice(error, cfg)}"
            f"{WHOLE_TRACEBACK}=1 before the command shows the whole traceback."
        ) from error


def _advice(error: Exception, cfg) -> str:
    """Return what to do about an error in a trainer file, if that is known, with a space after it."""
    if isinstance(error, KeyError) and error.args == (cfg.DATASET.NAME,):
        return f"The file has no entry for the dataset {cfg.DATASET.NAME}: add one next to the others. "
    if isinstance(error, KeyError) and error.args == (cfg.MODEL.BACKBONE.NAME,):
        return f"The file does not know the backbone {cfg.MODEL.BACKBONE.NAME}: use one that it knows. "
    if "NVIDIA" in str(error) or "CUDA" in str(error):
        return "The file needs a GPU there; self.device is the device of this run. "
    return ""


class OnCPU(TorchFunctionMode):
    """Keeps tensors and modules of a trainer file on the CPU in a run without a GPU, whatever the file asks for.

    It is on while the trainer is built, trains, or is tested, and covers `.cuda()`, `.to("cuda")`, and `device="cuda"`.

    Args:
        name: the trainer's, for the note that is printed once.
    """

    def __init__(self, name: str):
        super().__init__()
        self.name = name
        self.is_on = self.noted = False

    def build(self, trainer, cfg):
        """Return a trainer whose calls from outside run in this mode."""
        built = self.run(trainer, cfg)
        for name in ("train", "test", "evaluate", "load_for_test", "load_model", "forward_backward", "model_inference"):
            setattr(built, name, partial(self.run, getattr(built, name)))
        return built

    def run(self, call: Callable, *args, **kwargs):
        """Return the result of a call, made in this mode."""
        if self.is_on:
            return call(*args, **kwargs)
        self.is_on = True
        try:
            with self:
                return call(*args, **kwargs)
        finally:
            self.is_on = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.device:  # its name alone asks for nothing
            return func(*args, **kwargs)
        to_gpu = func is torch.Tensor.cuda
        if to_gpu or any(map(_is_gpu, (*args, *kwargs.values()))):
            if not self.noted:
                notify(f"Note: the file of {self.name} asks for a GPU; in this run, everything stays on the CPU.")
                self.noted = True
            if to_gpu:
                return args[0]
            args = tuple("cpu" if _is_gpu(value) else value for value in args)
            kwargs = {key: "cpu" if _is_gpu(value) else value for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _is_gpu(value: object) -> bool:
    if isinstance(value, torch.device):
        return value.type == "cuda"
    return isinstance(value, str) and (value == "cuda" or value.startswith("cuda:"))


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
