"""Read files of `torch.save` as tensors only: nothing in them is executed, and no object in them is rebuilt."""

import os
import warnings
import zipfile

import torch
from torch import Tensor


class Refused(ValueError):
    """A file is damaged or contains more than tensors. The message is a clause: "it contains ..."."""


class Stub:
    """Takes the place of an object that is not rebuilt. It has no content."""

    def __new__(cls, *arguments):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


# The original Dassl's checkpoints hold the learning-rate schedule and the optimizer as pickled objects.
OBJECTS = (
    "dassl.optim.lr_scheduler.ConstantWarmupScheduler",
    "dassl.optim.lr_scheduler.LinearWarmupScheduler",
    "dassl.optim.radam.RAdam",
    "torch.optim.adam.Adam",
    "torch.optim.adamw.AdamW",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.MultiStepLR",
    "torch.optim.lr_scheduler.StepLR",
    "torch.optim.rmsprop.RMSprop",
    "torch.optim.sgd.SGD",
)
# defaultdict(dict), the state of a pickled optimizer; torch fills plain dicts only.
CONTAINERS = [(dict, "builtins.dict"), (lambda *factory: {}, "collections.defaultdict")]


def read_tensors(path, device="cpu"):
    """Read a file of `torch.save`: tensors, numbers, strings and None in dicts, lists and tuples.

    Each optimizer and schedule that the original Dassl saves in its checkpoints becomes a `Stub`.

    Args:
        device (str): "meta" reads only the shapes, and does not verify checksums.

    Raises:
        Refused: the file is damaged or contains other objects.
    """
    try:
        zipped = zipfile.is_zipfile(path)  # files from torch before 1.6 are not
        if zipped:
            check_zip(path, checksums=device != "meta")
        # Mapped, because torch 2.9 otherwise lets a tensor claim memory beyond the file.
        return _copy(load(path, device, [(Stub, name) for name in OBJECTS] + CONTAINERS, mmap=zipped))
    except Refused:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise Refused(f"it is damaged ({type(error).__name__})") from error


def check_zip(path, checksums=True):
    """Check what torch does not: no compressed or overlapping records, which could fill the memory, and checksums.

    Raises:
        Refused: a check failed.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        size = sum(record.file_size for record in records)
        if size > os.path.getsize(path) or any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise Refused("its records are compressed or overlap, which torch.save never does")
        if checksums and (wrong := archive.testzip()):
            raise Refused(f"the checksum of its record {wrong!r} is wrong")


def load(file, device, stubs, mmap=False):
    """Call `torch.load` with `weights_only=True`.

    Args:
        file: a path or a binary file.
        device (str): as `map_location`.
        stubs (list of tuple): functions or classes that take the place of others, and the full names of those.

    Raises:
        Refused: the file is damaged or contains other objects.
    """
    with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(stubs):
        try:
            return torch.load(file, map_location=device, weights_only=True, mmap=mmap)
        except Exception as error:
            raise Refused(_reason(file, error)) from error


def _reason(file, error):
    try:
        if hasattr(file, "seek"):
            file.seek(0)
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # not even its list of contents can be read
        objects = []
    if objects:
        return f"it contains objects other than tensors ({', '.join(map(ascii, sorted(objects)[:3]))})"
    return f"it is damaged or not a file of tensors ({type(error).__name__})"


def _copy(value):
    """Copy all tensors in nested containers into memory.

    Raises:
        Refused: a tensor has more numbers than the file holds for it, because a stride is 0.
    """
    if isinstance(value, Tensor):
        if value.layout == torch.strided and value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise Refused("it contains a tensor that is larger than its storage")
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    return type(value)(map(_copy, value)) if isinstance(value, list | tuple) else value
