"""A store of tensors on disk, by key, shared by all runs: for results that are expensive, fixed, and needed again."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from basics import UserError, notify, write_atomic


class FeatureStore:
    """A folder of tensors, which several processes may use at a time.

    A file holds one tensor, and the SHA-256 of its key and its numbers. A file that is damaged or has a wrong name is
    reported and counts as missing.

    Args:
        folder: created when the first tensor is stored.
        budget: bytes that the files may take; beyond it, the least recently used ones are deleted.
    """

    def __init__(self, folder: Path, budget: float):
        self.folder = Path(folder)
        self.budget = budget

    def _path(self, key: dict) -> Path:
        return self.folder / f"{hashlib.sha256(_text(key)).hexdigest()}.safetensors"

    def get(self, key: dict) -> Tensor | None:
        """Return the tensor of a key (anything that JSON can hold), on the CPU; None if there is none."""
        path = self._path(key)
        tensor = None
        try:
            content = safetensors.torch.load(path.read_bytes())
            if torch.equal(content["sha256"], _digest(key, content["tensor"])):
                tensor = content["tensor"]
        except FileNotFoundError:
            return None
        except Exception:  # a damaged file, or a failing disk, raises almost anything
            pass
        if tensor is None:
            notify(f"Note: {path} is damaged; computing its content again")
            return None
        with suppress(OSError):  # just deleted, or in a read-only folder, where nothing gets deleted
            os.utime(path)  # used now
        return tensor

    def put(self, key: dict, tensor: Tensor) -> None:
        """Store a CPU tensor. If that fails (disk full, no permission), a note is printed and the run continues."""
        tensor = tensor.contiguous()
        data = safetensors.torch.save({"tensor": tensor, "sha256": _digest(key, tensor)})
        if len(data) > self.budget:
            return
        try:
            write_atomic(self._path(key), data)
            self._make_room()
        except (UserError, OSError) as error:
            notify(f"Note: cannot store the image features. {error}")

    def _make_room(self) -> None:
        files = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):  # another process is making room as well
                files += [(entry.stat(), entry.path)] if entry.name.endswith(".safetensors") else []
        excess = sum(stat.st_size for stat, _ in files) - self.budget
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if excess <= 0:
                break
            Path(path).unlink(missing_ok=True)
            excess -= stat.st_size


def _text(key: dict) -> bytes:
    return json.dumps(key, sort_keys=True).encode()


def _digest(key: dict, tensor: Tensor) -> Tensor:
    """Return the SHA-256 of a key and of a tensor's type, shape and numbers: (32,) uint8."""
    description = _text({"key": key, "dtype": str(tensor.dtype), "shape": list(tensor.shape)})
    numbers = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return torch.tensor(list(hashlib.sha256(description + numbers.tobytes()).digest()), dtype=torch.uint8)
