"""Read the tensors of OpenAI's TorchScript archives without running the programs in them.

Such an archive is a zip file: `data.pkl` describes nested modules whose leaves are tensors, `data/N` holds the numbers,
and `code/` holds programs. torch refuses to read one as tensors only, whatever it contains. Without the programs,
however, it is a file of `torch.save`.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from basics import UserError
from basics.tensors import load

NAME_OF_MODULE, NAME_OF_LIST = "__torch__.", "torch.jit._pickle.build_"  # prefix of TorchScript's names


class Module:
    """Takes the place of a module of the archive: its attributes without its code."""

    attributes: dict

    def __setstate__(self, state: dict) -> None:
        self.attributes = state


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive: a file of `torch.save` has no `constants.pkl`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Read the state dict in a TorchScript archive.

    Args:
        device: "meta" reads only the shapes.

    Raises:
        UserError: the file is damaged or contains anything but tensors in modules.
    """
    try:
        data = _without_programs(path)
        names = torch.serialization.get_unsafe_globals_in_checkpoint(data)
        data.seek(0)
        stubs: list[tuple[type, str]] = [(Module, name) for name in names if name.startswith(NAME_OF_MODULE)]
        stubs += [(list, name) for name in names if name.startswith(NAME_OF_LIST)]
        return _tensors(load(data, device, stubs))
    except Exception as error:  # a damaged archive raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: expected a TorchScript archive of tensors, but {reason}. Download it again."
        ) from error


def _without_programs(path: Path) -> io.BytesIO:
    """Convert the archive to a file of `torch.save`, in memory."""
    data = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(data, "w") as plain:
        for name in archive.namelist():
            if name.split("/")[1:] in (["data.pkl"], ["version"]) or name.split("/")[1:-1] == ["data"]:
                plain.writestr(name, archive.read(name))
    data.seek(0)
    return data


def _tensors(module: Module, prefix: str = "") -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, value in module.attributes.items():
        if isinstance(value, Module):
            tensors |= _tensors(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            tensors[prefix + name] = value
    return tensors
