"""The frozen image encoder's features of whole datasets, for methods that fit or store them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from dassl.data.feature_loader import FeatureLoader, with_views

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


def mean_of_views(trainer: PromptTrainer, count: int) -> tuple[Tensor, Tensor]:
    """Return features (N, D) and labels (N,) of all training images in order.

    Features are unit-length means over `count` augmented views of each image.
    """
    loader, total = trainer.train_loader_x, torch.zeros(())
    for view in range(count):
        if isinstance(loader, FeatureLoader):
            features, labels = loader.all_images(view)
        else:
            features, labels = collect(trainer, DataLoader(loader.dataset, trainer.cfg.DATALOADER.TEST.BATCH_SIZE))
        total = total + features
    return F.normalize(total, dim=-1), labels


def class_means(trainer: PromptTrainer) -> Tensor:
    """Return the unit-length mean of the features of each class's training images: (C, D)."""
    loader = trainer.train_loader_x
    features, labels = collect(trainer, DataLoader(loader.dataset, trainer.cfg.DATALOADER.TRAIN_X.BATCH_SIZE))
    sums = torch.zeros(trainer.num_classes, features.shape[1])
    return F.normalize(sums.index_add_(0, labels, features), dim=-1)


def load_image_caches(trainer: PromptTrainer, compute: Callable[[Tensor], Tensor]) -> None:
    """Train on what `compute` returns of a fixed pool of views (INPUT.VIEWS), unless the images are mixed.

    Args:
        compute: the KV cache of images (B, 3, H, W) as one tensor, without gradients.
    """
    if trainer.mixing is not None:
        return

    def encode(images: Tensor) -> Tensor:
        with torch.autocast(trainer.device.type, enabled=trainer.precision == "amp"):
            return compute(images.to(trainer.device)).cpu()

    tower = trainer.model.clip.visual
    size = tower.transformer.cache_bytes(len(tower.positional_embedding))
    trainer.train_loader_x = with_views(trainer.train_loader_x, trainer.cfg, encode, size)
