"""Tensors kept on disk by their keys, for all runs: what is expensive, frozen and asked for again."""

import hashlib
import json
import os
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from basics import UserError, write_atomic


class FeatureStore:
    """A folder of tensors. Several processes may use it at a time.

    A file holds one tensor, and the SHA-256 of its key and its numbers: a damaged file, or one under a wrong name, is
    told of and counts as missing.

    Args:
        folder: made when the first tensor is kept.
        budget: bytes that the files may take; beyond it those that were not used for the longest time go.
    """

    def __init__(self, folder: Path, budget: float):
        self.folder = Path(folder)
        self.budget = budget

    def _path(self, key: dict) -> Path:
        return self.folder / f"{hashlib.sha256(_text(key)).hexdigest()}.safetensors"

    def get(self, key: dict) -> Tensor | None:
        """The tensor kept under a key (what JSON can hold), on the CPU; None: there is none."""
        path = self._path(key)
        try:
            held = safetensors.torch.load(path.read_bytes())
            intact = torch.equal(held["sha256"], _digest(key, held["tensor"]))
        except FileNotFoundError:
            return None
        except Exception as error:  # of a damaged file, or a disk that fails
            intact, held = False, str(error)
        if not intact:
            print(f'Note: "{path}" is damaged; what it held is computed again')
            return None
        _touch(path)
        return held["tensor"]

    def put(self, key: dict, tensor: Tensor) -> None:
        """Keep a CPU tensor. Where that fails (disk full, no permission) the user is told, and the run goes on."""
        tensor = tensor.contiguous()
        data = safetensors.torch.save({"tensor": tensor, "sha256": _digest(key, tensor)})
        if len(data) > self.budget:
            return
        try:
            write_atomic(self._path(key), data)
            self._make_room()
        except (UserError, OSError) as error:
            print(f"Note: image features are not kept. {error}")

    def _make_room(self) -> None:
        files = [(entry.stat(), entry.path) for entry in os.scandir(self.folder) if entry.name.endswith(".safetensors")]
        excess = sum(stat.st_size for stat, _ in files) - self.budget
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if excess <= 0:
                break
            Path(path).unlink(missing_ok=True)  # another process may be making room as well
            excess -= stat.st_size


def _text(key: dict) -> bytes:
    return json.dumps(key, sort_keys=True).encode()


def _digest(key: dict, tensor: Tensor) -> Tensor:
    """SHA-256 of a key and of a tensor's type, shape and numbers: (32,) uint8."""
    description = _text({"key": key, "dtype": str(tensor.dtype), "shape": list(tensor.shape)})
    numbers = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return torch.tensor(list(hashlib.sha256(description + numbers.tobytes()).digest()), dtype=torch.uint8)


def _touch(path: Path) -> None:
    """Note that a file was used."""
    try:
        os.utime(path)
    except OSError:  # it has just been removed, or the folder is read-only: then nobody makes room in it either
        pass
