"""The frozen image encoder's features of whole datasets, for methods that fit or store them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from basics import UserError
from dassl.data.feature_loader import FeatureLoader
from dassl.utils import load_checkpoint

if TYPE_CHECKING:
    from trainers.base import PromptTrainer


@torch.no_grad()
def collect(trainer: PromptTrainer, batches: Iterable[dict]) -> tuple[Tensor, Tensor]:
    """Return features (N, D) and labels (N,) of all images, on the CPU; unit-length if the method's are."""
    features, labels = [], []
    for batch in batches:
        images, of_batch = trainer.parse_batch_train(batch)
        found = trainer.model.tower_features(images)
        features.append((F.normalize(found, dim=-1) if trainer.unit_length_features else found).cpu())
        labels.append(of_batch.cpu())
    return torch.cat(features), torch.cat(labels)


def augmented_views(trainer: PromptTrainer, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features (N, D) and labels (N,) of all training images in order, for one augmented view after the other."""
    loader = trainer.train_loader_x
    for view in range(count):
        if isinstance(loader, FeatureLoader):
            yield loader.all_images(view)
        else:
            yield collect(trainer, DataLoader(loader.dataset, trainer.cfg.DATALOADER.TEST.BATCH_SIZE))


def read_matrix(path: str | Path) -> Tensor:
    """Read a file of one matrix, such as the keys (D, N) or values (N, C) of a released Tip-Adapter.

    Raises:
        UserError: it is missing, damaged, or holds something else.
    """
    matrix = load_checkpoint(path)
    if not isinstance(matrix, Tensor) or matrix.dim() != 2:
        raise UserError(f"{path}: expected one matrix, got something else.")
    return matrix.detach()
