"""Checkpoint files and small operations on modules. Files are read as tensors only; nothing in them is executed."""

import io
import warnings
from pathlib import Path

import torch
from torch import nn

from basics import log, notify
from basics.errors import MissingFile, UserError
from basics.files import write_atomic
from basics.tensors import Refused, Stub, read_tensors


def save_tensors(state, path):
    """Write `state` to `path` atomically: tensors, numbers, strings and None in dicts, lists and tuples."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(fpath):
    """Read a file made by `torch.save`, on the CPU, as tensors only.

    The schedules and optimizers that the original Dassl pickles next to its tensors are not built; a `Stub` replaces
    each of them.

    Raises:
        ValueError: `fpath` is None.
        MissingFile: no such file.
        UserError: damaged, not a checkpoint, or with other objects inside.
    """
    if fpath is None:
        raise ValueError("File path is None")
    if not Path(fpath).is_file():
        raise MissingFile(f"{fpath}: expected a checkpoint file, got nothing. Check the path.")
    try:
        return read_tensors(fpath)
    except Refused as reason:
        raise UserError(
            f"{fpath}: expected a checkpoint, got another file: {reason}. Restore it, or delete it and run the "
            "same command to train again."
        ) from reason


def save_checkpoint(state, save_dir, is_best=False, remove_module_from_keys=True, model_name=""):
    """Write a checkpoint in the CoOp family's layout: `<save_dir>/<file>`, and `<save_dir>/checkpoint`, which names it.

    Args:
        state (dict): with keys `state_dict` and `epoch` (counted from 1).
        is_best (bool): also write it to `model-best.pth.tar`.
        remove_module_from_keys (bool): strip a leading "module." (DataParallel) from the keys of `state_dict`.
        model_name (str): the file's name; `model.pth.tar-<epoch>` if empty.
    """
    if remove_module_from_keys:
        state = {**state, "state_dict": _without_module_prefix(state["state_dict"])}
    save_dir = Path(save_dir)
    name = model_name or f"model.pth.tar-{state['epoch']}"
    save_tensors(state, save_dir / name)
    write_atomic(save_dir / "checkpoint", f"{name}\n".encode())
    if is_best:
        save_tensors(state, save_dir / "model-best.pth.tar")
    log(f"Checkpoint saved to {save_dir / name}")


def _without_module_prefix(state_dict):
    return {key.removeprefix("module."): value for key, value in state_dict.items()}


def last_checkpoint(folder):
    """Return the path of the file that `<folder>/checkpoint` names.

    Raises:
        MissingFile: one of the two files is missing.
    """
    pointer = Path(folder) / "checkpoint"
    if not pointer.is_file():
        raise MissingFile(
            f"{pointer}: expected a file with the name of the last checkpoint, got nothing. Name the checkpoint itself."
        )
    # Only a bare name is followed, so that the pointer cannot lead out of its folder.
    path = pointer.with_name(Path(pointer.read_text(encoding="utf-8").strip()).name)
    if not path.is_file():
        raise MissingFile(
            f"{pointer}: expected the name of an existing file, got {path.name}. Name the checkpoint itself."
        )
    return path


def resume_from_checkpoint(fdir, model, optimizer=None, scheduler=None):
    """Load the last checkpoint in `fdir` into model, optimizer and scheduler.

    Returns:
        int: the number of epochs done.

    Raises:
        UserError: the schedule is stored as an object, as the original Dassl does.
    """
    path = last_checkpoint(fdir)
    state = load_checkpoint(path)
    model.load_state_dict(state["state_dict"])
    if optimizer is not None and state.get("optimizer") is not None:
        optimizer.load_state_dict(state["optimizer"])
    if scheduler is not None and state.get("scheduler") is not None:
        if any(isinstance(value, Stub) for value in state["scheduler"].values()):
            raise UserError(
                f"{path}: expected a schedule in plain numbers, got an object of the original Dassl. Such a file can "
                "be tested, but not resumed."
            )
        scheduler.load_state_dict(state["scheduler"])
    return state["epoch"]


def load_pretrained_weights(model, weight_path):
    """Load the tensors of a checkpoint whose name and shape `model` has; print the names of the others."""
    checkpoint = load_checkpoint(weight_path)
    tensors = _without_module_prefix(checkpoint.get("state_dict", checkpoint))
    own = model.state_dict()
    matched = {key: value for key, value in tensors.items() if key in own and own[key].shape == value.shape}
    if not matched:
        warnings.warn(f'Cannot load "{weight_path}": no tensor has a matching name and shape', stacklevel=2)
        return
    model.load_state_dict(matched, strict=False)
    log(f'Loaded pretrained weights from "{weight_path}"')
    discarded = [key for key in tensors if key not in matched]
    if discarded:
        notify(f"Skipped, because their name or shape does not match: {', '.join(discarded)}")


def count_num_param(model=None, params=None):
    """Return the number of parameters (scalars) in `model`, or in `params` (tensors or parameter groups)."""
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is None:
        raise ValueError("expected a model or params, got neither")
    total = 0
    for item in params:
        total += sum(p.numel() for p in item["params"]) if isinstance(item, dict) else item.numel()
    return total


def open_all_layers(model):
    """Switch to train mode, with gradients for all parameters."""
    model.train()
    model.requires_grad_(True)


def open_specified_layers(model, open_layers):
    """Train only the direct children named in `open_layers` (str or list); freeze the others, in eval mode.

    Raises:
        ValueError: `model` has no child of that name.
    """
    if isinstance(model, nn.DataParallel):
        model = model.module
    names = [open_layers] if isinstance(open_layers, str) else list(open_layers)
    children = dict(model.named_children())
    for name in names:
        if name not in children:
            raise ValueError(f'expected a child of the model out of {", ".join(children)}, got "{name}"')
    for name, child in children.items():
        child.train(name in names)
        child.requires_grad_(name in names)


def init_network_weights(model, init_type="normal", gain=0.02):
    """Initialize convolution and linear weights by `init_type`, biases to 0, and norm layers to 1 and 0."""
    schemes = {
        "normal": lambda w: nn.init.normal_(w, 0.0, gain),
        "xavier": lambda w: nn.init.xavier_normal_(w, gain=gain),
        "kaiming": lambda w: nn.init.kaiming_normal_(w, a=0, mode="fan_in"),
        "orthogonal": lambda w: nn.init.orthogonal_(w, gain=gain),
    }
    if init_type not in schemes:
        raise ValueError(f'init_type: expected one of {", ".join(schemes)}, got "{init_type}"')
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            schemes[init_type](module.weight)
        elif isinstance(module, norms) and module.weight is not None:
            nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
