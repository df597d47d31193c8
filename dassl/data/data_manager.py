"""Loaders: from the lists of a dataset to batches.

A batch is a dict: ``img`` (B, 3, H, W) float, ``label`` (B,), ``domain`` (B,) and ``index`` (B,) int64, and ``impath``,
a list of B paths. If TEST.BAD_IMAGES is "wrong", an unreadable test image of class y becomes a black one with the label
``UNREADABLE - y``.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from tabulate import tabulate
from torch.utils.data import BatchSampler, Dataset

from basics import BadImage, UserError, leave_signals_to_parent, log, notify
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.data.digests import data_digests
from dassl.data.image_cache import ImageCache
from dassl.data.loader import Loader
from dassl.data.samplers import build_sampler
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.utils import available_cores, read_image, stream

UNREADABLE = -1  # not a class; UNREADABLE - y is negative for every label y


class DatasetWrapper(Dataset):
    """Read and transform the images of a list.

    The augmentation of a training image is a function of (seed, view, index), where the view is the epoch, or the epoch
    modulo INPUT.VIEWS. It does not depend on the worker that loads it, nor on other uses of random numbers.

    Args:
        cfg: the config; reads SEED, INPUT.*, DATALOADER.{K_TRANSFORMS, RETURN_IMG0} and TEST.BAD_IMAGES.
        data_source: the images.
        transform: maps a PIL image to a tensor. Several give the items ``img``, ``img2``, ``img3``, ...; None leaves
            ``img`` a PIL image.
        is_train: whether the transform is random. Only then K_TRANSFORMS counts: above 1, ``img`` is a list of so many
            transformed copies.

    Attributes:
        read: maps a path to a PIL image; :func:`build_data_loader` sets it to the image cache.

    Raises:
        UserError: K_TRANSFORMS above 1 without a transform.
    """

    def __init__(
        self,
        cfg,
        data_source: list[Datum],
        transform: Callable | Sequence[Callable] | None = None,
        is_train: bool = False,
    ):
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.read: Callable[[str], Image.Image] = partial(read_image, max_megapixels=cfg.INPUT.MAX_MEGAPIXELS)
        self.count_bad = cfg.TEST.BAD_IMAGES == "wrong" and not is_train
        self.seed = run_seed(cfg)
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise UserError(f"DATALOADER.K_TRANSFORMS: expected 1 without a transform, got {self.k_tfm}.")

        plain = [T.Resize(cfg.INPUT.SIZE, INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]), T.ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            plain.append(T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
        self.to_tensor = T.Compose(plain)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, key: int | tuple[int, int]) -> dict:
        """Return one item; ``key`` is an index (of view 0) or a (view, index) pair."""
        view, index = key if isinstance(key, tuple) else (0, key)
        datum = self.data_source[index]
        item = {"label": datum.label, "domain": datum.domain, "impath": datum.impath, "index": index}
        try:
            image = self.read(datum.impath)
        except BadImage as error:
            if not self.count_bad:
                raise
            notify(f"Counted as wrong: {error}")
            image = Image.new("RGB", tuple(self.cfg.INPUT.SIZE[::-1]))
            item["label"] = UNREADABLE - datum.label
        if self.is_train:
            with random_state_of(stream(self.seed, "augmentation", view, index).initial_seed()):
                item |= self._images(image)
        else:
            item |= self._images(image)
        return item

    def _images(self, image: Image.Image) -> dict:
        images: dict = {}
        if self.transform is None:
            images["img"] = image
        else:
            transforms = [self.transform] if callable(self.transform) else self.transform
            for number, transform in enumerate(transforms, start=1):
                copies = [transform(image) for _ in range(self.k_tfm)]
                images["img" if number == 1 else f"img{number}"] = copies if self.k_tfm > 1 else copies[0]
        if self.return_img0:
            images["img0"] = self.to_tensor(image)
        return images


def run_seed(cfg) -> int:
    """Return the seed of the run; without one, the unpredictable seed that torch's own generator started from."""
    return cfg.SEED if cfg.SEED >= 0 else torch.initial_seed()


@contextmanager
def random_state_of(seed: int) -> Iterator[None]:
    """Seed Python, numpy and torch (CPU) inside; afterward, their streams continue where they were."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # numpy takes 32 bits
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs as well
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def build_data_loader(
    cfg,
    sampler_type: str = "SequentialSampler",
    data_source: list[Datum] | None = None,
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Callable | Sequence[Callable] | None = None,
    is_train: bool = True,
    dataset_wrapper: Callable[..., Dataset] | None = None,
    image_cache: ImageCache | None = None,
    batches: type[BatchSampler] | None = None,
) -> Loader:
    """Return a loader. It uses nothing of the global random streams.

    Args:
        cfg: the config; reads SEED, USE_CUDA, INPUT.* and DATALOADER.*.
        sampler_type: one of `dassl.data.samplers.SAMPLERS`.
        data_source: the images.
        batch_size: images per batch. In training, the last, smaller batch is dropped, unless it is the only one.
        n_domain: domains per batch of a RandomDomainSampler; 0 for all.
        n_ins: images per class in a batch of a RandomClassSampler.
        tfm: the transform.
        is_train: for training.
        dataset_wrapper: used in place of :class:`DatasetWrapper`; it gets (view, index) pairs, except from a
            SequentialSampler.
        image_cache: decoded images for a :class:`DatasetWrapper`; a training loader fills it before its first batch.
        batches: as in :class:`dassl.data.loader.Loader`.

    Raises:
        UserError: no images, an unknown sampler, or one that does not suit the batch size or the images.
    """
    if not data_source:
        purpose, advice = "testing", "Add some."
        if is_train:
            purpose = "training"
            advice = "Add some, or only test a trained model: --eval-only --model-dir RUN."
        place = f"{cfg.DATASET.ROOT} ({cfg.DATASET.NAME})" if cfg.DATASET.ROOT else cfg.DATASET.NAME
        raise UserError(f"DATASET.ROOT: expected images for {purpose} in {place}, got none. {advice}")
    seed = run_seed(cfg)
    # Results do not depend on the number of workers; more workers than cores would only be slower.
    num_workers = min(cfg.DATALOADER.NUM_WORKERS, available_cores())
    dataset = (dataset_wrapper or DatasetWrapper)(cfg, data_source, transform=tfm, is_train=is_train)
    if image_cache is not None and isinstance(dataset, DatasetWrapper):
        dataset.read = image_cache.read
    return Loader(
        image_cache=image_cache if is_train else None,
        batches=batches,
        dataset=dataset,
        batch_size=batch_size,
        sampler=build_sampler(
            sampler_type, data_source, seed, cfg.INPUT.VIEWS if is_train else 0, batch_size, n_domain, n_ins
        ),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
        worker_init_fn=leave_signals_to_parent,
        generator=stream(seed, "workers"),
    )


class DataManager:
    """The dataset of a config and its loaders.

    Before the first training batch, all training images are decoded, and kept up to DATALOADER.KEEP_GIB, so that a bad
    one is found before the first step. The same goes for validation images if the run uses them after every epoch.

    Args:
        cfg: the config.
        custom_tfm_train, custom_tfm_test: used in place of the config's transforms.
        dataset_wrapper: used in place of :class:`DatasetWrapper`.
        batches: the kind of batches for training and tests, as in :class:`dassl.data.loader.Loader`.

    Attributes:
        dataset: the dataset.
        train_loader_x, train_loader_u, val_loader, test_loader: loaders; train_loader_u and val_loader are None where
            the dataset has no such images, and test_loader too with TEST.NO_TEST or own images.
        plain_train_loader: loads all training images in order, transformed as test images.
    """

    def __init__(
        self,
        cfg,
        custom_tfm_train: Callable | Sequence[Callable] | None = None,
        custom_tfm_test: Callable | Sequence[Callable] | None = None,
        dataset_wrapper: Callable[..., Dataset] | None = None,
        batches: type[BatchSampler] | None = None,
    ):
        self.dataset: DatasetBase = build_dataset(cfg)
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        tfm_train = build_transform(cfg, is_train=True) if custom_tfm_train is None else custom_tfm_train
        tfm_test = build_transform(cfg, is_train=False) if custom_tfm_test is None else custom_tfm_test

        paths, budget = self._read_every_epoch(cfg), cfg.DATALOADER.KEEP_GIB * 2**30
        image_cache = ImageCache(paths, budget, cfg.INPUT.MAX_MEGAPIXELS)

        def loader(data_source, settings, tfm, is_train, batches=batches):
            return build_data_loader(
                cfg,
                sampler_type=settings.SAMPLER,
                data_source=data_source,
                batch_size=settings.BATCH_SIZE,
                n_domain=settings.get("N_DOMAIN", 0),
                n_ins=settings.get("N_INS", 1),
                tfm=tfm,
                is_train=is_train,
                dataset_wrapper=dataset_wrapper,
                image_cache=image_cache,
                batches=batches,
            )

        loaders = cfg.DATALOADER
        unlabeled = loaders.TRAIN_X if loaders.TRAIN_U.SAME_AS_X else loaders.TRAIN_U
        data = self.dataset
        self.train_loader_x = loader(data.train_x, loaders.TRAIN_X, tfm_train, True)
        self.train_loader_u = loader(data.train_u, unlabeled, tfm_train, True) if data.train_u else None
        self.val_loader = loader(data.val, loaders.TEST, tfm_test, False) if data.val else None
        without_test = not data.test and (cfg.TEST.NO_TEST or getattr(data, "own_images", False))
        self.test_loader: Any = None if without_test else loader(data.test, loaders.TEST, tfm_test, False)
        self.plain_train_loader = loader(data.train_x, loaders.TEST, tfm_test, False, batches=None)
        self.plain_train_loader.dataset.count_bad = False  # a training image must be readable
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def _read_every_epoch(self, cfg) -> list[str]:
        """Return the paths of the images that a training run needs in every epoch."""
        data = self.dataset
        val = data.val if cfg.TEST.FINAL_MODEL == "best_val" and cfg.TEST.BAD_IMAGES == "error" else None
        return [item.impath for part in (data.train_x, data.train_u, val) for item in part or []]

    @cached_property
    def digests(self) -> dict[str, str]:
        """The digests of the training, validation, and test images (:func:`data_digests`)."""
        return data_digests(self.dataset)

    @property
    def num_classes(self) -> int:
        return self.dataset.num_classes

    @property
    def num_source_domains(self) -> int:
        return self._num_source_domains

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class name of each label."""
        return self.dataset.lab2cname

    def show_dataset_summary(self, cfg) -> None:
        """Print the sizes of the dataset."""
        rows = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            rows.append(["Source", cfg.DATASET.SOURCE_DOMAINS])
        if cfg.DATASET.TARGET_DOMAINS:
            rows.append(["Target", cfg.DATASET.TARGET_DOMAINS])
        rows.append(["# classes", f"{self.num_classes:,}"])
        for part in ("train_x", "train_u", "val", "test"):
            items = getattr(self.dataset, part)
            if items:
                rows.append([f"# {part}", f"{len(items):,}"])
        log(tabulate(rows))
