"""Tensors out of OpenAI's TorchScript archives, without running anything that stands in them.

Such an archive is a zip file: `data.pkl` describes nested modules whose leaves are tensors, `data/N` holds the numbers,
`code/` holds programs, which are never looked at. The description is read by an unpickler that knows tensors, plain
containers and empty shells for modules, and refuses every other name.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from basics import UserError

STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class Shell:
    """Stands for a module of the archive: its attributes, no behaviour."""

    def __setstate__(self, state: dict) -> None:
        self.attributes = state


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


class _TensorsOnly(pickle.Unpickler):
    def __init__(self, file, records):
        """`records` gives the bytes of a name; None: shapes alone are asked for."""
        super().__init__(file)
        self.records = records

    def find_class(self, module: str, name: str):
        if module.startswith("__torch__"):
            return type(name, (Shell,), {})
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither a tensor nor a container")

    def persistent_load(self, reference) -> Tensor:
        _, dtype, key, _, count = reference
        if self.records is None:
            return torch.empty(count, dtype=dtype, device="meta")
        return torch.frombuffer(bytearray(self.records(key)), dtype=dtype, count=count)


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive (a plain `torch.save` has no `constants.pkl`)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The state dict that stands in a TorchScript archive.

    Args:
        device: "meta" reads the shapes alone.

    Raises:
        UserError: the file is damaged, or holds anything but tensors in modules.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(n for n in archive.namelist() if n.endswith("/data.pkl")).removesuffix("data.pkl")
            with archive.open(root + "data.pkl") as description:
                records = None if device == "meta" else lambda key: archive.read(f"{root}data/{key}")
                return _tensors_of(_TensorsOnly(description, records).load())
    except Exception as error:  # a damaged description raises nearly anything
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a readable TorchScript archive: {reason}; download it again") from error


def _tensors_of(shell: Shell, prefix: str = "") -> dict[str, Tensor]:
    tensors = {}
    for name, value in shell.attributes.items():
        if isinstance(value, Shell):
            tensors |= _tensors_of(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            tensors[prefix + name] = value
    return tensors
