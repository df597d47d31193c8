"""Images are decoded once and returned unchanged, whatever the budget and however many workers share them."""

import numpy as np
import pytest
import torch
from PIL import Image

from basics import UserError
from dassl.data import DataManager, image_cache
from dassl.data.datasets import build_dataset
from dassl.data.image_cache import ImageCache
from dassl.utils import read_image

PIXELS = 12 * 14 * 3  # bytes of each picture of Small


@pytest.fixture
def paths(cfg):
    return [item.impath for item in build_dataset(cfg).train_x]


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode and np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("chunk_bytes", [1, 3 * PIXELS, image_cache.CHUNK_BYTES])
def test_cached_images_equal_the_files_which_are_not_read_again(paths, monkeypatch, chunk_bytes):
    monkeypatch.setattr(image_cache, "CHUNK_BYTES", chunk_bytes)
    wide = Image.effect_noise((31, 5), 50).convert("RGB")
    wide.save(paths[2])  # not all of one size
    expected = {path: read_image(path) for path in paths}
    store = ImageCache([*paths, paths[0]], budget=2**20)
    store.fill()
    monkeypatch.setattr(image_cache, "read_image", lambda path, limit: pytest.fail("read again"))
    store.fill()
    assert all(same(store.read(path), image) for path, image in expected.items())


@pytest.mark.parametrize(("budget", "kept"), [(0, 0), (PIXELS, 1), (5 * PIXELS - 1, 4)])
def test_images_beyond_the_budget_are_read_from_their_files(paths, monkeypatch, budget, kept):
    store = ImageCache(paths, budget)
    store.fill()
    read = []
    monkeypatch.setattr(image_cache, "read_image", lambda path, limit: read.append(path) or read_image(path))
    assert all(same(store.read(path), read_image(path)) for path in paths)
    assert read == paths[kept:]


def test_changing_a_cached_image_does_not_change_the_cache(paths):
    store = ImageCache(paths, budget=2**20)
    store.fill()
    store.read(paths[0]).paste((1, 2, 3), (0, 0, 14, 12))
    assert same(store.read(paths[0]), read_image(paths[0]))


def test_all_bad_images_are_named_before_the_first_batch(cfg, paths):
    for path in (paths[3], paths[7]):
        with open(path, "wb") as file:
            file.write(b"no picture")
    for _ in range(2):  # not only the first time
        with pytest.raises(UserError, match="2 of 18 training images are unreadable") as error:
            next(iter(DataManager(cfg).train_loader_x))
    assert all(path in str(error.value) for path in (paths[3], paths[7]))


@pytest.mark.parametrize("final_model", ["last_step", "best_val"])
def test_validation_images_are_checked_first_if_every_epoch_needs_them(cfg, final_model):
    cfg.TEST.FINAL_MODEL = final_model
    manager = DataManager(cfg)
    with open(manager.dataset.val[0].impath, "wb"):
        pass
    if final_model == "last_step":
        assert next(iter(manager.train_loader_x))["img"].shape == (4, 3, 8, 8)
    else:
        with pytest.raises(UserError, match="val_ant_0.png"):
            next(iter(manager.train_loader_x))


def test_testing_alone_decodes_no_training_image(cfg, paths):
    with open(paths[0], "wb"):
        pass
    assert len(list(DataManager(cfg).test_loader)) == 2


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_deliver_cached_images_without_reading_files(cfg, paths, start_method):
    plain = list(DataManager(cfg).train_loader_x)  # the store is filled from the same files
    cfg.DATALOADER.KEEP_GIB = 0.0
    straight = list(DataManager(cfg).train_loader_x)
    cfg.DATALOADER.KEEP_GIB, cfg.DATALOADER.NUM_WORKERS = 0.1, 1
    loader = DataManager(cfg).train_loader_x
    loader.multiprocessing_context = start_method
    loader.image_cache.fill()
    for path in paths:
        with open(path, "wb"):  # emptied: who reads it fails
            pass
    shared = list(loader)
    for a, b, c in zip(plain, straight, shared, strict=True):
        assert torch.equal(a["img"], b["img"]) and torch.equal(a["img"], c["img"]) and a["impath"] == c["impath"]
