"""Batches of frozen image features in place of images.

If the image encoder of a method is frozen, an image's features depend on the weights and on the augmented view alone.
The features of an epoch's views are therefore computed before its first step, each view once, or read from a store
that other runs, methods and settings have filled.

The last bits of a feature depend on which images are encoded together (matrix products are divided by their sizes).
That is why features are always computed for whole lists, in order and in batches of one size, with or without a store:
whether it is full, empty or off changes no number.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import PIL
import torch
import torchvision
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader

from basics import UserError, cache_dir, explain_os_error, show_progress
from dassl.data.data_manager import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.feature_store import FeatureStore
from dassl.data.loader import Loader
from dassl.data.samplers import InOrder
from dassl.utils import in_threads

ENCODED_AT_ONCE = 32  # images
FORMAT = 1  # increase it when a transform or a tower computes something else for the same settings


class FeatureLoader:
    """A loader's batches with ``features`` (B, D) in place of ``img``; everything else is the loader's.

    The features of the last view are held in memory; of a pool of views (INPUT.VIEWS), those of all.

    Args:
        loader: loads the images of a :class:`DatasetWrapper`; its sampler's order and its batches are kept.
        encode: maps images (B, 3, H, W) to features on the CPU, (B, D) or of more dimensions.
        key: what the features depend on besides the image files and, in training, the seed and the epoch.
        store: keeps features under that key; None for no store.
    """

    def __init__(
        self,
        loader: Loader,
        encode: Callable[[Tensor], Tensor],
        key: dict | None = None,
        store: FeatureStore | None = None,
    ):
        dataset, batch_sampler = loader.dataset, loader.batch_sampler
        assert isinstance(dataset, DatasetWrapper) and isinstance(batch_sampler, BatchSampler)
        self.dataset, self.sampler, self.batch_sampler = dataset, loader.sampler, batch_sampler
        self.encode, self.store = encode, store
        self.key = {**(key or {}), "block": ENCODED_AT_ONCE, "seed": dataset.seed if dataset.is_train else None}
        self._in_order = InOrder(dataset)
        self._images = Loader(
            image_cache=loader.image_cache,
            dataset=dataset,
            batch_size=ENCODED_AT_ONCE,
            sampler=self._in_order,
            num_workers=loader.num_workers,
            persistent_workers=loader.persistent_workers,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            generator=loader.generator,
        )
        self._held: dict[int, tuple[Tensor, Tensor]] = {}  # view -> features and labels of all images

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict]:
        features, labels = self.all_images(getattr(self.sampler, "view", 0))
        for keys in self.batch_sampler:
            indices = [key[1] if isinstance(key, tuple) else key for key in keys]
            items = [self.dataset.data_source[index] for index in indices]
            yield {
                "features": features[indices],
                "label": labels[indices],
                "domain": torch.tensor([item.domain for item in items]),
                "impath": [item.impath for item in items],
                "index": torch.tensor(indices),
            }

    def all_images(self, view: int) -> tuple[Tensor, Tensor]:
        """Return features (N, D) and labels (N,) of all images, in one view of each."""
        if view in self._held:
            return self._held[view]
        if not getattr(self.sampler, "views", 0):
            self._held.clear()  # an epoch's views do not return
        labels = torch.tensor([item.label for item in self.dataset.data_source])
        features = self._stored(view)
        if features is None:
            features, loaded_labels = self._compute(view)
            if self.store is not None and torch.equal(labels, loaded_labels):  # else an image was unreadable
                self.store.put(self._key_of(view), features)
            labels = loaded_labels
        self._held[view] = features, labels
        return features, labels

    def _stored(self, view: int) -> Tensor | None:
        if self.store is None:
            return None
        if "images" not in self.key:
            self.key["images"] = files_sha256(self.dataset.data_source)
        return self.store.get(self._key_of(view))

    def _key_of(self, view: int) -> dict:
        return {**self.key, "view": view}

    def _compute(self, view: int) -> tuple[Tensor, Tensor]:
        """Return features (N, D) and labels (N,) of all images."""
        self._in_order.view = view
        features, labels = [], []
        for batch in show_progress(self._images, "image features", unit="batch"):
            features.append(self.encode(batch["img"]))
            labels.append(batch["label"])
        return torch.cat(features), torch.cat(labels)


def with_features(loader: DataLoader | None, cfg, encode: Callable[[Tensor], Tensor], key: dict | None):
    """Return a :class:`FeatureLoader` over a loader of one view per image; any other loader, or None, unchanged.

    Args:
        cfg: the config of the loader's transform; reads INPUT and DATALOADER.FEATURES_GIB.
        key: identifies the encoder: weights, precision, device. The rest is added here. None for no store.
    """
    dataset = getattr(loader, "dataset", None)
    if not isinstance(loader, Loader) or not isinstance(dataset, DatasetWrapper):
        return loader
    if dataset.transform is None or dataset.k_tfm > 1 or dataset.return_img0:
        return loader
    if key is None or not cfg.DATALOADER.FEATURES_GIB:
        return FeatureLoader(loader, encode)
    key = {
        **key,
        "format": FORMAT,
        "transform": {name: value for name, value in cfg.INPUT.items() if not name.startswith("VIEWS")},
        "training": dataset.is_train,
        "versions": [torch.__version__, torchvision.__version__, PIL.__version__],
        # These decide the order in which the terms of a product are added.
        "cpu": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
    }
    store = FeatureStore(cache_dir("features"), cfg.DATALOADER.FEATURES_GIB * 2**30)
    return FeatureLoader(loader, encode, key, store)


def with_views(loader: DataLoader | None, cfg, encode: Callable[[Tensor], Tensor], image_bytes: int):
    """Return a loader that holds what `encode` computes of a fixed pool of views (INPUT.VIEWS) in memory.

    Without such a pool, the loader is returned unchanged; `cfg` and `encode` are as in `with_features`.

    Args:
        image_bytes: the size of what `encode` returns for one image.

    Raises:
        UserError: all views need more than INPUT.VIEWS_GIB.
    """
    dataset = getattr(loader, "dataset", None)
    if not cfg.INPUT.VIEWS or not isinstance(dataset, DatasetWrapper):
        return loader
    images = len(dataset)
    needed, limit = image_bytes * images * cfg.INPUT.VIEWS / 2**30, cfg.INPUT.VIEWS_GIB
    if needed > limit:
        raise UserError(
            f"INPUT.VIEWS: expected views that need at most {limit} GiB (INPUT.VIEWS_GIB), got {needed:.3g} GiB for "
            f"{cfg.INPUT.VIEWS} views of {images} images. Raise the limit, or use fewer views."
        )
    return with_features(loader, cfg, encode, key=None)


def files_sha256(items: list[Datum]) -> str:
    """Return the SHA-256 (hex) of the content of all images' files, in order.

    Raises:
        UserError: a file is missing or cannot be opened.
    """

    def digest(item: Datum) -> bytes:
        try:
            return hashlib.sha256(Path(item.impath).read_bytes()).digest()
        except OSError as error:
            raise explain_os_error(item.impath, "a readable file", error) from error

    return hashlib.sha256(b"".join(in_threads(digest, items))).hexdigest()
