"""What of a run is kept on disk, and how a run goes on from it.

Two kinds of files hold tensors. Checkpoints, in the family's layout `<registered name>/model.pth.tar-<epoch>`, are for
testing and for others. `state.pt` is for going on: it is one file, written as a whole, with all that the rest of the
run depends on. Only what is trained is kept; frozen parameters come from the backbone's own file.
"""

import functools
import hashlib
from pathlib import Path

import torch
from torch import nn

from basics import MissingFile, NonFiniteLoss, UserError, write_atomic
from dassl.config import FREE_TO_CHANGE, flatten
from dassl.engine.run_folder import FolderTaken
from dassl.utils import get_random_state, last_checkpoint, load_checkpoint, save_tensors, set_random_state

STATE_FILE = "state.pt"
STATE_FORMAT = 2
LONGEST_REASON = 200  # letters of what the content of a file made some library say
BEST_FILE = "model-best.pth.tar"
OTHER_FOLDER = "Choose another --output-dir, or delete that folder to start anew."

# Buffers of prompt learners that depend on the class names, not on training; a checkpoint is loaded for other classes.
CLASS_DEPENDENT = ("token_prefix", "token_midfix", "token_suffix")


def trained_tensors(module):
    """Parameters with gradients and persistent buffers, under their names in the module's `state_dict`.

    The tensors share the module's memory.
    """
    return {
        key: tensor.detach()
        for key, tensor in module.state_dict(keep_vars=True).items()
        if tensor.requires_grad or not isinstance(tensor, nn.Parameter)
    }


def snapshot(module):
    """Copies of the module's trained tensors on the CPU, as they are written to files.

    Raises:
        NonFiniteLoss: a parameter holds NaN or infinite numbers; what was saved before is worth more than that.
    """
    # clone(): a view would take the whole memory behind it into the file.
    tensors = {key: tensor.cpu().clone() for key, tensor in trained_tensors(module).items()}
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for key, tensor in tensors.items():
        if key in parameters and not tensor.isfinite().all():
            raise NonFiniteLoss(
                f"{key} holds NaN or infinite numbers, though the loss was finite: its gradient was not. It is not "
                "saved. A smaller OPTIM.LR, a larger OPTIM.EPS (Adam) or full precision may help."
            )
    return tensors


def class_dependent(module):
    """A test whether a name is that of a tensor which belongs to the class names, and is not loaded for others.

    A module may name such tensors in its attribute `ignored_keys`: whole words of their dotted names, one or more.
    """
    words = {*CLASS_DEPENDENT, *getattr(module, "ignored_keys", ())}
    return lambda name: any(f".{word}." in f".{name}." for word in words)


def prompts_sha256(modules):
    """SHA-256 (hex) over names, dtypes, shapes and bytes of the trained tensors of `modules` ({name: module}).

    Those that belong to the class names are left out: the same prompts have the same digest on other classes.
    """
    digest = hashlib.sha256()
    for name, module in modules.items():
        left_out = class_dependent(module)
        for key, tensor in sorted(trained_tensors(module).items()):
            if left_out(key):
                continue
            digest.update(f"{name}/{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_trained(module, tensors, source, ignored=lambda name: False):
    """Copy `tensors` into the trained tensors of `module`.

    A key may have "module." or "prompt_learner." before the module's own name, as in the file of a whole model. Tensors
    of the frozen backbone are left out, and counted in a printed line: those of the module's frozen parameters, and
    those that `module.backbone_shapes` ({key in such a file: shape}) declares.

    Args:
        tensors: {key: tensor}.
        source: the file they come from, for messages.
        ignored: a test whether a name is that of a tensor that is neither expected nor loaded.

    Raises:
        UserError: a trained tensor is missing, of another shape or kind, or not finite; a tensor of the backbone is of
            another shape; or a key is unknown; one line for each.
    """

    known, backbone = module.state_dict(), getattr(module, "backbone_shapes", {})
    expected = {name: tensor for name, tensor in trained_tensors(module).items() if not ignored(name)}
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    found, left_out, problems = {}, 0, []
    for key, tensor in tensors.items():
        name = key
        for prefix in ("module.", "prompt_learner."):
            name = name if name in known else name.removeprefix(prefix)
        if ignored(name):
            continue
        if name not in known and name not in backbone:
            problems.append(f"{key}: found shape {tuple(tensor.shape)}, but the model has nothing of that name")
            continue
        shape = known[name].shape if name in known else backbone[name]
        if tensor.shape != shape:
            problems.append(f"{key}: expected shape {tuple(shape)}, found {tuple(tensor.shape)}")
        elif name not in expected:
            left_out += 1
        elif name in found:
            problems.append(f"{key}: the file holds {name} twice, with and without a prefix")
        elif tensor.is_floating_point() != expected[name].is_floating_point():
            problems.append(f"{key}: expected {expected[name].dtype}, found {tensor.dtype}")
        elif name in parameters and not tensor.isfinite().all():
            problems.append(f"{key}: holds NaN or infinite numbers")
        found[name] = tensor
    problems += [
        f"{name}: expected shape {tuple(tensor.shape)}, found nothing"
        for name, tensor in expected.items()
        if name not in found
    ]
    if problems:
        raise UserError(
            f'"{source}" does not fit the model (another method, backbone or configuration?):\n' + "\n".join(problems)
        )
    if left_out:
        print(f'Left out of "{source}": {left_out} tensors of the frozen backbone')
    module.load_state_dict({name: found[name] for name in expected}, strict=False)


def find_checkpoint(directory, name, epoch=None):
    """The checkpoint of the registered model `name` in a run's folder.

    Args:
        epoch: counted from 1. None: the best one (`model-best.pth.tar`) if there is one, otherwise the last one.

    Raises:
        MissingFile: it is not there; the message says which epochs are.
    """
    folder = Path(directory) / name
    if not folder.is_dir():
        raise MissingFile(f'no checkpoints of "{name}": expected the folder "{folder}"')
    if epoch is None and (folder / BEST_FILE).is_file():
        return folder / BEST_FILE
    if epoch is None and (folder / "checkpoint").is_file():
        return last_checkpoint(folder)
    numbers = [file.name.rpartition("-")[2] for file in folder.glob("model.pth.tar-*")]
    epochs = sorted(int(number) for number in numbers if number.isdigit())
    if epoch is None and epochs:
        epoch = epochs[-1]
    if epoch not in epochs:
        wanted = "checkpoint" if epoch is None else f"checkpoint of epoch {epoch}"
        raise MissingFile(f'no {wanted} in "{folder}"; there are: {", ".join(map(str, epochs)) or "none"}')
    return folder / f"model.pth.tar-{epoch}"


def bring_best(source, target, names):
    """Copy the best checkpoints of the registered models `names`, if there are any, to another run's folder."""
    for name in names:
        best = Path(source) / name / BEST_FILE
        if best.is_file():
            write_atomic(Path(target) / name / BEST_FILE, best.read_bytes())


def load_model_file(module, path):
    """Load a checkpoint's trained tensors into a module, leaving out those that depend on the class names.

    A file that is a state dict itself will do. A module whose weights belong to single classes says which in its
    attribute `classnames`; it does not take those of others.

    Returns:
        (epochs done, val_result or None), as the file says.
    """
    checkpoint = load_checkpoint(path)
    if isinstance(checkpoint, dict) and "state_dict" not in checkpoint:
        checkpoint = {"state_dict": checkpoint}
    tensors = checkpoint["state_dict"] if isinstance(checkpoint, dict) else None
    if not _are_tensors(tensors):
        raise UserError(f'"{path}" is not a checkpoint: expected a dict of tensors under "state_dict"')
    epoch, val_result = checkpoint.get("epoch"), checkpoint.get("val_result")
    if not isinstance(epoch, int | None) or not isinstance(val_result, int | float | None):
        raise UserError(f'"{path}" is not a checkpoint: expected numbers under "epoch" and "val_result"')
    there, here = checkpoint.get("classnames"), getattr(module, "classnames", None)
    if there and here and there != here:
        raise UserError(
            f'"{path}" holds weights of single classes, and was trained on others: expected {_names(here)}, '
            f"found {_names(there)}. Test it on the classes it was trained on"
        )
    load_trained(module, tensors, path, ignored=class_dependent(module))
    return epoch, val_result


def _names(classnames):
    return ", ".join(classnames[:5]) + (f" and {len(classnames) - 5} more" if len(classnames) > 5 else "")


def _are_tensors(tensors):
    """Whether it is a dict of names and dense tensors (a file can also bring sparse and quantised ones)."""
    return isinstance(tensors, dict) and all(
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        for name, tensor in tensors.items()
    )


def save_state(trainer, path):
    """Write all that the rest of the trainer's run depends on."""
    state = {
        "format": STATE_FORMAT,
        "epoch": len(trainer.rows),
        "progress": trainer.progress.state_dict() if trainer.progress.batches else None,
        "nonfinite_steps": trainer.watch.skipped,
        "sources": _sources(trainer),
        "auto_settings": trainer.auto_settings(),
        "config": flatten(trainer.cfg),
        "models": {name: snapshot(module) for name, module in trainer._models.items()},
        "optimizers": _state_dicts(trainer._optims),
        "schedulers": _state_dicts(trainer._scheds),
        "scaler": trainer.scaler.state_dict() if trainer.scaler is not None else None,
        "best_result": trainer.best_result,
        "best_val": trainer.best_val,
        "rows": trainer.rows,
        "random": get_random_state(),
    }
    save_tensors(state, path)


def saved_auto_settings(cfg):
    """What `auto_settings` returned in the run that this one resumes; {} if there is none, or its state is damaged."""
    for folder in filter(None, (cfg.OUTPUT_DIR, cfg.RESUME)):
        path = Path(folder) / STATE_FILE
        if path.is_file():
            try:
                return dict(load_checkpoint(path)["auto_settings"])
            except (UserError, KeyError, TypeError, ValueError):
                return {}  # resuming will report it
    return {}


def _sources(trainer):
    """Digests of what a run is made from beside its configuration: the draw of images, the frozen weights."""
    draw = getattr(trainer.dm.dataset, "draw_hash", None)
    return {"the drawn images": draw, "the frozen weights": getattr(trainer, "weights_sha256", None)}


def _state_dicts(parts):
    return {name: part.state_dict() if part is not None else None for name, part in parts.items()}


def _told(restore):
    """The function itself, but what it raises over a state that lacks something, or holds something else, is told."""

    @functools.wraps(restore)
    def told(trainer, path):
        try:
            done, rows = restore(trainer, path), trainer.rows
            if type(done) is not int or done < 0 or not all(isinstance(row, dict) for row in rows):
                raise TypeError(f"{done!r} epochs, {rows!r}"[:LONGEST_REASON])
            return done
        except UserError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
            raise UserError(f'"{path}" is not the state of a run: {reason}. Delete it to start anew') from error

    return told


@_told
def restore_state(trainer, path):
    """Put the trainer where the run that wrote `path` was.

    Returns:
        int: the number of complete epochs; `trainer.progress` says how far the next one is.

    Raises:
        FolderTaken: the file belongs to a run with another configuration, other images or other weights.
        UserError: the file is damaged. In either case it is left alone.
    """
    state = load_checkpoint(path)
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        raise UserError(f'"{path}" is not the state of a run, or that of another version: delete it to start anew')
    _check_config(state["config"], flatten(trainer.cfg), path)
    _check_sources(state["sources"], _sources(trainer), path)
    if list(state["models"]) != list(trainer._models):
        raise UserError(f'"{path}" holds the models {list(state["models"])}, the trainer has {list(trainer._models)}')
    for name, module in trainer._models.items():
        load_trained(module, state["models"][name], path)
        for parts, kind in ((trainer._optims, "optimizers"), (trainer._scheds, "schedulers")):
            if parts[name] is not None:
                parts[name].load_state_dict(state[kind][name])
    if state["scaler"] is not None:
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.best_result, trainer.best_val = state["best_result"], state["best_val"]
    trainer.rows = state["rows"]
    trainer.keep_auto_settings(state["auto_settings"])
    trainer.watch.skipped = state["nonfinite_steps"]
    if state["progress"] is not None:
        trainer.progress.load_state_dict(state["progress"])
    set_random_state(state["random"])
    return state["epoch"]


def _check_config(there, here, path):
    # A key that only one side knows came or went with another method's file, or with a version: it decided nothing.
    differing = [
        f"{key}: {there[key]!r} there, {here[key]!r} now"
        for key in sorted((there.keys() & here.keys()) - FREE_TO_CHANGE)
        if there[key] != here[key]
    ]
    if differing:
        raise FolderTaken(
            f'"{path}" belongs to a run with another configuration:\n' + "\n".join(differing) + f"\n{OTHER_FOLDER}"
        )


def _check_sources(there, here, path):
    differing = [what for what in there if there[what] and here[what] and there[what] != here[what]]
    if differing:
        raise FolderTaken(
            f'"{path}" belongs to a run on other data: {" and ".join(differing)} are not the same any more. '
            f"{OTHER_FOLDER}"
        )
