"""A cache of training images, the keys of which are their features: its tensors, and those of released files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from basics import NotApplicable, UserError
from dassl.engine.checkpoints import load_trained, trained_tensors
from dassl.utils import load_checkpoint
from trainers.base import PromptTrainer


class CachedImages(nn.Module):
    """The keys, `adapter.weight` (N, D), and the `labels` (N,) of N training images.

    The keys are a parameter if they are trained, and a buffer otherwise.
    """

    labels: Tensor

    def __init__(self, n: int, width: int, is_trained: bool):
        super().__init__()
        self.adapter, self.is_trained = nn.Module(), is_trained
        self._register_keys(torch.zeros(n, width))
        self.register_buffer("labels", torch.zeros(n, dtype=torch.long))

    @property
    def keys(self) -> Tensor:
        """The keys, (N, D)."""
        return cast(Tensor, self.adapter.weight)

    def fill(self, keys: Tensor, labels: Tensor) -> None:
        """Set the keys (N, D) and the labels (N,) of all images."""
        with torch.no_grad():
            self.keys.copy_(keys)
        self.labels.copy_(labels)

    def resize(self, tensors: Mapping[str, Tensor]) -> None:
        """Make room for the keys of a checkpoint: their number is that of its training images."""
        keys = tensors.get("adapter.weight")
        if keys is not None and keys.dim() == 2 and len(keys) != len(self.keys):  # else the optimizer has the parameter
            self._register_keys(self.keys.new_zeros(len(keys), self.keys.shape[1]))
            self.labels = self.labels.new_zeros(len(keys))

    def _register_keys(self, keys: Tensor) -> None:
        if self.is_trained:
            self.adapter.register_parameter("weight", nn.Parameter(keys))
        else:
            self.adapter.register_buffer("weight", keys)


class CacheTrainer(PromptTrainer):
    """Trains a method whose prompt learner is a cache. It also loads caches that Tip-Adapter's released code has saved.

    Such a cache is a folder with two files, values_16shots.pt and, with 16 shots as well, `released_keys`.
    """

    released_keys = ""

    def needs_whole_batches(self) -> bool:
        return True

    def search(self) -> object:
        """Set what a released cache does not hold."""
        raise NotImplementedError

    def released_file(self, directory, name: str) -> Path:
        """Return where the released code saves a part of the cache."""
        return Path(directory or "") / f"{name}_{self.cfg.DATASET.NUM_SHOTS}shots.pt"

    def locate_model(self, directory, epoch=None):
        is_released = self.released_file(directory, "values").is_file()
        return (directory, epoch) if is_released else super().locate_model(directory, epoch)

    def load_model(self, directory, epoch=None) -> int | None:
        values_file, keys_file = (self.released_file(directory, name) for name in ("values", self.released_keys))
        if not values_file.is_file():
            return super().load_model(directory, epoch)
        values, keys, cache = _read_matrix(values_file), _read_matrix(keys_file), self.model.prompt_learner
        if values.shape[1] != self.num_classes:
            raise NotApplicable(
                f"{values_file}: expected {self.num_classes} classes, got {values.shape[1]}. Test it on the classes "
                "that it was made for."
            )
        keys = keys.t() if self.released_keys == "keys" else keys
        found = {"adapter.weight": keys, "labels": values.argmax(dim=1)}
        load_trained(cache, trained_tensors(cache) | found, keys_file)
        self.search()
        return None


def _read_matrix(path: Path) -> Tensor:
    """Read a file of one matrix: keys (D, N) or (N, D), or one-hot values (N, C)."""
    matrix = load_checkpoint(path)
    if not isinstance(matrix, Tensor) or matrix.dim() != 2:
        raise UserError(f"{path}: expected one matrix, got something else. Give a file of Tip-Adapter's released code.")
    return matrix.detach()
