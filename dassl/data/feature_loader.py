"""Batches of frozen image features in place of images.

Where the image side of a method is frozen, an image's feature depends on the weights and on the augmented view alone.
So the features of an epoch's views are computed before its first step, each view once, or taken from a store that
other runs, methods and settings have filled.

The last bits of a feature depend on which images run beside it (matrix products are cut up by their sizes). That is why
features are always computed for whole lists, in order and in blocks of one size, whether a store is there or not:
filled, empty or left out, it changes no number.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import PIL
import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from basics import UserError, cache_dir
from dassl.data.data_manager import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.feature_store import FeatureStore
from dassl.data.loader import Loader
from dassl.data.samplers import InOrder
from dassl.utils import in_threads

BLOCK = 32  # images encoded at a time
FORMAT = 1  # to be raised when a transform or a tower computes something else for the same settings


class FeatureLoader:
    """A loader's batches, ``img`` being features (B, D); everything else is the loader's.

    The features of the last view are held in memory; of a pool of views (INPUT.VIEWS) those of all.

    Args:
        loader: gives the images; its sampler's order and its batches are kept.
        encode: from images (B, 3, H, W) to features (B, D) on the CPU, or of more dimensions.
        key: what the features depend on beside the images' files and, in training, the seed and the epoch.
        store: where features are kept by that key; None: nowhere.
    """

    def __init__(
        self,
        loader: Loader,
        encode: Callable[[Tensor], Tensor],
        key: dict | None = None,
        store: FeatureStore | None = None,
    ):
        self.dataset, self.sampler, self.batch_sampler = loader.dataset, loader.sampler, loader.batch_sampler
        self.encode, self.store = encode, store
        self.key = {**(key or {}), "block": BLOCK, "seed": loader.dataset.seed if loader.dataset.is_train else None}
        self._in_order = InOrder(loader.dataset)
        self._images = Loader(
            image_cache=loader.image_cache,
            dataset=loader.dataset,
            batch_size=BLOCK,
            sampler=self._in_order,
            num_workers=loader.num_workers,
            persistent_workers=loader.persistent_workers,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            generator=loader.generator,
        )
        self._held: dict[int, tuple[Tensor, Tensor]] = {}  # by view: features and labels of all images

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict]:
        features, labels = self._all(getattr(self.sampler, "view", 0))
        for keys in self.batch_sampler:
            indices = [key[1] if isinstance(key, tuple) else key for key in keys]
            items = [self.dataset.data_source[index] for index in indices]
            yield {
                "img": features[indices],
                "label": labels[indices],
                "domain": torch.tensor([item.domain for item in items]),
                "impath": [item.impath for item in items],
                "index": torch.tensor(indices),
            }

    def _all(self, view: int) -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of all images, in one view of each."""
        if view in self._held:
            return self._held[view]
        if not getattr(self.sampler, "views", 0):
            self._held.clear()  # an epoch's views do not come back
        labels = torch.tensor([item.label for item in self.dataset.data_source])
        features = self._kept(view)
        if features is None:
            features, delivered = self._compute(view)
            if self.store is not None and torch.equal(labels, delivered):  # else an image could not be read
                self.store.put(self._key_of(view), features)
            labels = delivered
        self._held[view] = features, labels
        return features, labels

    def _kept(self, view: int) -> Tensor | None:
        if self.store is None:
            return None
        if "images" not in self.key:
            self.key["images"] = files_sha256(self.dataset.data_source)
        return self.store.get(self._key_of(view))

    def _key_of(self, view: int) -> dict:
        return {**self.key, "view": view}

    def _compute(self, view: int) -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of all images."""
        self._in_order.view = view
        features, labels = [], []
        for batch in tqdm(self._images, "image features", unit="batch", leave=False, disable=None):
            features.append(self.encode(batch["img"]))
            labels.append(batch["label"])
        return torch.cat(features), torch.cat(labels)


def with_features(loader: DataLoader | None, cfg, encode: Callable[[Tensor], Tensor], key: dict | None):
    """A :class:`FeatureLoader` over a loader of one view of each image; any other loader, or None, as it is.

    Args:
        cfg: the config of the loader's transform; reads INPUT and DATALOADER.FEATURES_GIB.
        key: names the encoder: weights, precision, device. The rest is added here. None: nothing is kept on disk.
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
        # What decides in which order a product's terms are added.
        "cpu": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
    }
    store = FeatureStore(cache_dir("features"), cfg.DATALOADER.FEATURES_GIB * 2**30)
    return FeatureLoader(loader, encode, key, store)


def files_sha256(items: list[Datum]) -> str:
    """SHA-256 (hex) of the content of all images' files, in their order.

    Raises:
        UserError: a file is missing or cannot be opened.
    """

    def digest(item: Datum) -> bytes:
        try:
            return hashlib.sha256(Path(item.impath).read_bytes()).digest()
        except OSError as error:
            raise UserError(f'cannot open "{item.impath}": {error.strerror}') from error

    return hashlib.sha256(b"".join(in_threads(digest, items))).hexdigest()
