"""Checkpoints in the CoOp family's layout, `<registered name>/model.pth.tar-<epoch>`, for testing and sharing.

They hold only what is trained; frozen parameters come from the backbone's own file.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from basics import MissingFile, NonFiniteLoss, NotApplicable, UserError, log, read_json, write_atomic
from dassl.utils import last_checkpoint, load_checkpoint

BEST_FILE = "model-best.pth.tar"
CHECKPOINT = re.compile(r"model\.pth\.tar-\d+|model-best\.pth\.tar")
RUN_OF_FIT = "run"  # in the folder of a model that `dassl fit` made
RUNS_BELOW = 7  # levels at which a message looks for runs; those of a protocol are 7 below its --output
MOST_NAMES = 5  # in a message
NESTED = 3  # levels of CLIP-LoRA's files: layer, map, matrix

# Buffers of prompt learners that belong to the class names, not to the training; a checkpoint may serve other classes.
CLASS_DEPENDENT = ("token_prefix", "token_midfix", "token_suffix")


def trained_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters with gradients and persistent buffers, under their names in the module's `state_dict`.

    The tensors share the module's memory.
    """
    return {
        key: tensor.detach()
        for key, tensor in module.state_dict(keep_vars=True).items()
        if tensor.requires_grad or not isinstance(tensor, nn.Parameter)
    }


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the module's trained tensors on the CPU, as they are written to files.

    Raises:
        NonFiniteLoss: a parameter holds NaN or infinite numbers, which must not replace what was saved before.
    """
    # clone(): a view would write all of its underlying memory to the file.
    tensors = {key: tensor.cpu().clone() for key, tensor in trained_tensors(module).items()}
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for key, tensor in tensors.items():
        if key in parameters and not tensor.isfinite().all():
            raise NonFiniteLoss(
                f"{key}: expected finite numbers, got NaN or infinite ones; the loss was finite, but its gradient was "
                "not. Nothing was saved. Try a smaller OPTIM.LR, a larger OPTIM.EPS (Adam) or full precision."
            )
    return tensors


def class_dependent(module: nn.Module) -> Callable[[str], bool]:
    """Return a test of whether a tensor, given by name, belongs to the class names and is not loaded for others.

    Besides `CLASS_DEPENDENT`, these are the names that the module lists in an attribute `ignored_keys`: one or more
    whole words of a dotted name.
    """
    words = {*CLASS_DEPENDENT, *getattr(module, "ignored_keys", ())}
    return lambda name: any(f".{word}." in f".{name}." for word in words)


def prompts_sha256(modules: Mapping[str, nn.Module]) -> str:
    """Return the SHA-256 (hex) of names, dtypes, shapes and bytes of the trained tensors of `modules`, by name.

    Tensors that belong to the class names do not count, so equal prompts have equal digests on other classes.
    """
    digest = hashlib.sha256()
    for name, module in modules.items():
        is_class_dependent = class_dependent(module)
        for key, tensor in sorted(trained_tensors(module).items()):
            if is_class_dependent(key):
                continue
            digest.update(f"{name}/{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_trained(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str | Path,
    ignored: Callable[[str], bool] = lambda name: False,
) -> None:
    """Copy `tensors` into the trained tensors of `module`.

    A key may have "module." or "prompt_learner." before the module's own name, as in the file of a whole model. Tensors
    of the frozen backbone are skipped, and counted in a printed line: those of the module's frozen parameters, and
    those that `module.backbone_shapes` ({key in such a file: shape}) declares.

    Args:
        tensors: {key: tensor}.
        source: the file they come from, for messages.
        ignored: whether the tensor of a given name is neither expected nor loaded.

    Raises:
        UserError: a trained tensor is missing, of another shape or kind, or not finite; a tensor of the backbone has
            another shape; or a key is unknown. One line for each.
    """
    resize = getattr(module, "resize", None)
    if callable(resize):  # its size depends on the training images, not on the config
        resize(tensors)
    known, backbone = module.state_dict(), getattr(module, "backbone_shapes", {})
    expected = {name: tensor for name, tensor in trained_tensors(module).items() if not ignored(name)}
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    found: dict[str, Tensor] = {}
    n_frozen, problems = 0, []
    for key, tensor in tensors.items():
        name = key
        for prefix in ("module.", "prompt_learner."):
            name = name if name in known else name.removeprefix(prefix)
        if ignored(name):
            continue
        if name not in known and name not in backbone:
            problems.append(f"{key}: expected no tensor of this name, got shape {tuple(tensor.shape)}")
            continue
        shape = known[name].shape if name in known else backbone[name]
        if tensor.shape != shape:
            problems.append(f"{key}: expected shape {tuple(shape)}, got {tuple(tensor.shape)}")
        elif name not in expected:
            n_frozen += 1
        elif name in found:
            problems.append(f"{key}: expected one tensor {name}, got two, with and without a prefix")
        elif tensor.is_floating_point() != expected[name].is_floating_point():
            problems.append(f"{key}: expected {expected[name].dtype}, got {tensor.dtype}")
        elif name in parameters and not tensor.isfinite().all():
            problems.append(f"{key}: expected finite numbers, got NaN or infinite ones")
        found[name] = tensor
    problems += [
        f"{name}: expected shape {tuple(tensor.shape)}, got nothing"
        for name, tensor in expected.items()
        if name not in found
    ]
    if problems:
        raise UserError(
            f"{source}: expected the tensors of this model, got others (of another method, backbone or config?):\n"
            + "\n".join(problems)
        )
    if n_frozen:
        log(f'Skipped {n_frozen} tensors of the frozen backbone in "{source}"')
    module.load_state_dict({name: found[name] for name in expected}, strict=False)


def locate_model(given: str | Path, names: list[str], epoch: int | None = None) -> tuple[Path, int | None]:
    """Return the folder of the run that a path points at, and the epoch.

    Args:
        given: the run's folder, the checkpoint folder of one of its models, a checkpoint file, a file next to the
            checkpoint folders, or a folder that holds the run in `run` (that of `dassl fit`).
        names: the registered models of the method.
        epoch: counted from 1; None for that of the file.

    Returns:
        (run, epoch), as `find_checkpoint` takes them. A checkpoint in a folder of another name stands for itself.

    Raises:
        MissingFile: there is nothing.
        UserError: something else is there; or the file is of another epoch.
    """
    given = Path(given).expanduser()
    expected = f"--model-dir: expected a trained run with checkpoints of {' and '.join(names)}, or one of these"
    if not given.exists():
        raise MissingFile(f'{expected}, got "{given}", which does not exist. Check the path.')
    folder = given if given.is_dir() else given.parent
    for run in (folder, folder / RUN_OF_FIT):
        if (run / names[0]).is_dir():
            return run, epoch
    if given.is_file():
        at = given.name.rpartition("-")[2] if CHECKPOINT.fullmatch(given.name) else ""
        if at.isdigit() and epoch not in (None, int(at)):
            raise UserError(f"--load-epoch: expected {at}, that of {given}, got {epoch}. Leave it out.")
        if folder.name in names and (at or given.name == "checkpoint"):
            return folder.parent, int(at) if at.isdigit() else epoch
        if len(names) == 1:
            return given, epoch
    elif any(CHECKPOINT.fullmatch(name) for name in os.listdir(given)):
        if given.name in names:
            return given.parent, epoch
        if len(names) == 1:
            return find_checkpoint(given.parent, given.name, epoch), epoch
    raise UserError(f"{expected}, got {given}: {describe_content(given)}.")


def describe_content(folder: str | Path) -> str:
    """Say what a folder holds that was expected to be that of a trained run or a saved model."""
    folder = Path(folder)
    if not folder.is_dir():
        return "a file of something else"
    names = sorted(os.listdir(folder))
    if not names:
        return "an empty folder"
    with suppress(UserError):
        results = read_json(folder / "results.json")
        if isinstance(results, dict) and results.get("model_dir"):
            return f"a run that tested the model in {results['model_dir']}; name that one"
    with_checkpoints = sorted({file.parent.name for file in folder.glob("*/model*.pth.tar*")})
    if with_checkpoints:
        return f"a run with checkpoints of {' and '.join(with_checkpoints)}; name one of this method"
    if "config.yaml" in names:
        return "a run without checkpoints; train it, or name another one"
    if "model.safetensors" in names:
        return "a saved model, for `dassl predict`, without its training; name the run that it comes from"
    runs = sorted({file.parent for n in range(1, RUNS_BELOW + 1) for file in folder.glob("*/" * n + "config.yaml")})
    if runs:
        listed = ", ".join(str(run.relative_to(folder)) for run in runs[:MOST_NAMES])
        return f"a folder of {len(runs)} runs ({listed}{', ...' * (len(runs) > MOST_NAMES)}); name one of them"
    return f"a folder with {', '.join(names[:MOST_NAMES])}{', ...' * (len(names) > MOST_NAMES)}"


def find_checkpoint(directory: str | Path, name: str, epoch: int | None = None) -> Path:
    """Return the path of the checkpoint of the registered model `name` in a run's folder.

    Args:
        directory: the run's folder; a checkpoint file is returned unchanged.
        epoch: counted from 1. None for the best one (`model-best.pth.tar`) if it exists, or else the last one.

    Raises:
        MissingFile: it does not exist; the message lists the epochs that do.
    """
    folder = Path(directory) / name
    if Path(directory).is_file():
        return Path(directory)
    if not folder.is_dir():
        raise MissingFile(
            f'{folder}: expected the folder with the checkpoints of "{name}", got nothing. Give the folder of a '
            "trained run of this method."
        )
    if epoch is None and (folder / BEST_FILE).is_file():
        return folder / BEST_FILE
    if epoch is None and (folder / "checkpoint").is_file():
        return last_checkpoint(folder)
    numbers = [file.name.rpartition("-")[2] for file in folder.glob("model.pth.tar-*")]
    epochs = sorted(int(number) for number in numbers if number.isdigit())
    if epoch is None and epochs:
        epoch = epochs[-1]
    if epoch not in epochs:
        wanted = "a checkpoint" if epoch is None else f"a checkpoint of epoch {epoch}"
        advice = "Choose one of these." if epochs else "Train the model first."
        raise MissingFile(f"{folder}: expected {wanted}, got epochs {', '.join(map(str, epochs)) or 'none'}. {advice}")
    return folder / f"model.pth.tar-{epoch}"


def last_epoch(directory: str | Path, names: list[str]) -> int | None:
    """Return the epoch (from 1) of the last checkpoint of the models `names`; None if there is a best one, or none."""
    for name in names:
        try:
            number = find_checkpoint(directory, name).name.rpartition("-")[2]
        except MissingFile:
            return None
        if number.isdigit():
            return int(number)
    return None


def copy_best(source: str | Path, target: str | Path, names: list[str]) -> None:
    """Copy the best checkpoints of the registered models `names`, where they exist, to another run's folder."""
    for name in names:
        best = Path(source) / name / BEST_FILE
        if best.is_file():
            write_atomic(Path(target) / name / BEST_FILE, best.read_bytes())


def load_model_file(module: nn.Module, path: str | Path) -> tuple[int | None, float | None]:
    """Load a checkpoint's trained tensors into a module, except those that belong to the class names.

    The file may also be a bare state dict, or CLIP-LoRA's: nested dicts of tensors as "weights". A module whose weights
    belong to single classes lists these in its attribute `classnames`, and refuses the weights of other classes.

    Returns:
        (epochs done, val_result) as stored in the file; None where it has none.

    Raises:
        NotApplicable: the weights belong to other classes.
        UserError: the file is damaged, is not a checkpoint, or does not fit the module.
    """
    checkpoint = load_checkpoint(path)
    if isinstance(checkpoint, dict) and "state_dict" not in checkpoint:
        weights = checkpoint.get("weights", checkpoint)
        checkpoint = {"state_dict": _joined_names(weights) if isinstance(weights, dict) else weights}
    tensors = checkpoint["state_dict"] if isinstance(checkpoint, dict) else None
    if not _are_tensors(tensors):
        raise UserError(
            f'{path}: expected a checkpoint, with a dict of tensors as "state_dict", got something else. '
            "Give another file."
        )
    epoch, val_result = checkpoint.get("epoch"), checkpoint.get("val_result")
    if not isinstance(epoch, int | None) or not isinstance(val_result, int | float | None):
        raise UserError(
            f'{path}: expected a checkpoint, with numbers as "epoch" and "val_result", got something else. '
            "Give another file."
        )
    trained_on, here = checkpoint.get("classnames"), getattr(module, "classnames", None)
    if trained_on and here and trained_on != here:
        raise NotApplicable(
            f"{path}: expected weights of the classes {_abbreviated(here)}, got those of {_abbreviated(trained_on)}. "
            "Test them on the classes that they were trained on."
        )
    load_trained(module, tensors, path, ignored=class_dependent(module))
    return epoch, val_result


def _joined_names(tensors: dict, levels: int = NESTED) -> dict[str, object]:
    """Flatten nested dicts into one whose names are joined by dots; dicts below `levels` stay, and are refused."""
    joined: dict[str, object] = {}
    for name, value in tensors.items():
        if isinstance(value, dict) and levels > 1:  # a file can also bring a dict that contains itself
            joined |= {f"{name}.{last}": each for last, each in _joined_names(value, levels - 1).items()}
        else:
            joined[name] = value
    return joined


def _abbreviated(classnames: list[str]) -> str:
    return ", ".join(classnames[:5]) + (f" and {len(classnames) - 5} more" if len(classnames) > 5 else "")


def _are_tensors(tensors: object) -> TypeGuard[dict[str, Tensor]]:
    """Return whether `tensors` is a dict of names and dense tensors; a file can also bring sparse or quantized ones."""
    return isinstance(tensors, dict) and all(
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        for name, tensor in tensors.items()
    )
