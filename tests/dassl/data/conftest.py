"""A small dataset: folders of images, and the config that reads it."""

import numpy as np
import pytest
from PIL import Image

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, Datum, FewShotDataset

CLASSES = ("ant", "bee", "cat")
COUNTS = {"train": 6, "val": 5, "test": 2}  # pictures of each class


@DATASET_REGISTRY.register(force=True)
class Small(FewShotDataset):
    """Three classes of noise, read from their folders."""

    dataset_dir = "small"
    image_dir = "pictures"
    split_file = "split_zhou_Small.json"
    prompt = "a drawing of a {}."

    def make_split(self):
        folder = f"{self.dataset_dir}/pictures"
        return tuple(
            [
                Datum(f"{folder}/{part}_{name}_{n}.png", label, classname=name)
                for label, name in enumerate(CLASSES)
                for n in range(count)
            ]
            for part, count in COUNTS.items()
        )


@pytest.fixture(scope="session")
def picture():
    """Return one random picture, larger than the transforms' size and not square."""
    noise = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture
def root(tmp_path):
    """Return a DATA folder with the pictures of Small."""
    folder = tmp_path / "small" / "pictures"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, count in COUNTS.items():
        for name in CLASSES:
            for n in range(count):
                noise = generator.integers(0, 256, (12, 14, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{part}_{name}_{n}.png")
    return tmp_path


@pytest.fixture
def cfg(root, monkeypatch, tmp_path_factory):
    """Return the config that reads Small with training augmentation."""
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path_factory.mktemp("cache")))
    cfg = get_cfg_default()
    cfg.SEED = 1
    cfg.VERBOSE = False
    cfg.DATASET.NAME = "Small"
    cfg.DATASET.ROOT = str(root)
    cfg.INPUT.SIZE = (8, 8)
    cfg.INPUT.INTERPOLATION = "bicubic"
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 4
    cfg.DATALOADER.TEST.BATCH_SIZE = 4
    return cfg
