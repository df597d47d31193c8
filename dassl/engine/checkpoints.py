"""Checkpoints in the CoOp family's layout, `<registered name>/model.pth.tar-<epoch>`, for testing and sharing.

They hold only what is trained; frozen parameters come from the backbone's own file.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from basics import MissingFile, NonFiniteLoss, NotApplicable, UserError, log, write_atomic
from dassl.utils import last_checkpoint, load_checkpoint

BEST_FILE = "model-best.pth.tar"
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


def find_checkpoint(directory: str | Path, name: str, epoch: int | None = None) -> Path:
    """Return the path of the checkpoint of the registered model `name` in a run's folder.

    Args:
        epoch: counted from 1. None for the best one (`model-best.pth.tar`) if it exists, or else the last one.

    Raises:
        MissingFile: it does not exist; the message lists the epochs that do.
    """
    folder = Path(directory) / name
    if not folder.is_dir():
        raise MissingFile(f'{folder}: expected the folder with the checkpoints of "{name}", got nothing.')
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
        raise MissingFile(f"{folder}: expected {wanted}, got epochs {', '.join(map(str, epochs)) or 'none'}.")
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
        raise UserError(f'{path}: expected a checkpoint, with a dict of tensors as "state_dict", got something else.')
    epoch, val_result = checkpoint.get("epoch"), checkpoint.get("val_result")
    if not isinstance(epoch, int | None) or not isinstance(val_result, int | float | None):
        raise UserError(f'{path}: expected a checkpoint, with numbers as "epoch" and "val_result", got something else.')
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
