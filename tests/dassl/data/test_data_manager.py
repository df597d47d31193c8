"""Loaders: same images and same augmentation for any number of workers and after a restart."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from PIL import Image

from basics import BadImage, UserError
from dassl.data import DataManager, DatasetWrapper, build_data_loader
from dassl.data.datasets import build_dataset


def epoch(manager, number):
    """Return all batches of one training epoch: tensors and the order of the images."""
    manager.train_loader_x.sampler.set_epoch(number)
    batches = list(manager.train_loader_x)
    return torch.cat([batch["img"] for batch in batches]), [path for batch in batches for path in batch["impath"]]


def global_states():
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


def test_a_manager_has_the_loaders_and_classes_of_its_dataset(cfg):
    manager = DataManager(cfg)
    assert manager.num_classes == 3 and manager.lab2cname == {0: "ant", 1: "bee", 2: "cat"}
    assert manager.num_source_domains == 0
    assert manager.train_loader_u is None
    loaders = (manager.train_loader_x, manager.val_loader, manager.test_loader)
    assert [len(loader.dataset) for loader in loaders] == [18, 15, 6]
    batch = next(iter(manager.train_loader_x))
    assert batch["img"].shape == (4, 3, 8, 8) and batch["img"].dtype == torch.float32
    assert batch["label"].dtype == batch["index"].dtype == batch["domain"].dtype == torch.int64
    for index, path, label in zip(batch["index"], batch["impath"], batch["label"], strict=True):
        assert manager.dataset.train_x[index].impath == path
        assert manager.dataset.train_x[index].label == label


def test_a_summary_of_the_dataset_is_printed(cfg, capsys):
    cfg.VERBOSE = True
    DataManager(cfg)
    printed = capsys.readouterr().out
    assert "# classes  3" in printed and "# train_x  18" in printed and "# test     6" in printed


def test_workers_and_restarts_change_neither_order_nor_augmentation(cfg):
    straight = DataManager(cfg)
    images = [epoch(straight, number) for number in range(3)]
    assert images[0][1] != images[1][1]

    restarted = DataManager(cfg)
    torch.rand(7), random.random(), np.random.rand()
    tensors, order = epoch(restarted, 2)
    assert order == images[2][1] and torch.equal(tensors, images[2][0])

    cfg.DATALOADER.NUM_WORKERS = 2
    several = DataManager(cfg)
    for number in range(3):
        tensors, order = epoch(several, number)
        assert order == images[number][1] and torch.equal(tensors, images[number][0])


def test_augmentation_changes_with_epoch_image_and_seed(cfg):
    data = build_dataset(cfg).train_x

    def image(seed, key, source=data):
        cfg.SEED = seed
        transform = T.Compose([T.RandomResizedCrop(8), T.ToTensor()])
        return DatasetWrapper(cfg, source, transform=transform, is_train=True)[key]["img"]

    same = data[:1] * 2  # one picture at two places
    assert torch.equal(image(1, 0), image(1, (0, 0)))
    assert not torch.equal(image(1, (0, 0)), image(1, (1, 0)))
    assert not torch.equal(image(1, (0, 0)), image(2, (0, 0)))
    assert not torch.equal(image(1, (0, 0), same), image(1, (0, 1), same))


def test_random_numbers_of_python_and_numpy_are_keyed_too(cfg):
    data = build_dataset(cfg).train_x

    def transform(image):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])

    wrapper = DatasetWrapper(cfg, data, transform=transform, is_train=True)
    first = wrapper[3, 5]["img"]
    random.random(), np.random.rand(), torch.rand(())
    assert torch.equal(wrapper[3, 5]["img"], first)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_does_not_use_the_global_random_streams(cfg, num_workers):
    cfg.DATALOADER.NUM_WORKERS = num_workers
    before = global_states()
    manager = DataManager(cfg)
    for loader in (manager.train_loader_x, manager.test_loader):
        for _ in range(2):
            list(loader)
    assert global_states() == before


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4] * 4), (18, [18]), (19, [18])])
def test_a_smaller_last_training_batch_is_dropped_unless_alone(cfg, batch_size, sizes):
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = batch_size
    loader = DataManager(cfg).train_loader_x
    assert [len(batch["label"]) for batch in loader] == sizes
    assert len(loader) == len(sizes)


def test_evaluation_sees_every_image_once_in_order(cfg):
    manager = DataManager(cfg)
    paths = [path for batch in manager.test_loader for path in batch["impath"]]
    assert paths == [item.impath for item in manager.dataset.test]


def test_plain_training_images_are_in_order_and_transformed_as_test_images(cfg):
    cfg.TEST.BAD_IMAGES = "wrong"
    manager = DataManager(cfg)
    batches = list(manager.plain_train_loader)
    assert [path for batch in batches for path in batch["impath"]] == [item.impath for item in manager.dataset.train_x]
    transform = manager.test_loader.dataset.transform
    with Image.open(batches[0]["impath"][1]) as image:
        assert torch.equal(batches[0]["img"][1], transform(image.convert("RGB")))
    Path(batches[0]["impath"][1]).write_bytes(b"")
    with pytest.raises(BadImage):
        list(DataManager(cfg).plain_train_loader)


def test_several_copies_and_the_plain_image_are_delivered(cfg):
    cfg.DATALOADER.K_TRANSFORMS = 2
    cfg.DATALOADER.RETURN_IMG0 = True
    manager = DataManager(cfg)
    batch = next(iter(manager.train_loader_x))
    assert [copy.shape for copy in batch["img"]] == [(4, 3, 8, 8)] * 2
    assert not torch.equal(*batch["img"])
    plain = T.Compose([T.Resize((8, 8), T.InterpolationMode.BICUBIC), T.ToTensor()])
    plain.transforms.append(T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
    source = manager.train_loader_x.dataset
    expected = [plain(DatasetWrapper(cfg, source.data_source)[index.item()]["img"]) for index in batch["index"]]
    assert torch.equal(batch["img0"], torch.stack(expected))


def test_several_transforms_give_numbered_images(cfg):
    wrapper = DatasetWrapper(cfg, build_dataset(cfg).test, transform=[T.ToTensor(), T.Grayscale()])
    item = wrapper[0]
    assert item["img"].shape == (3, 12, 14) and item["img2"].mode == "L"


def test_copies_without_a_transform_are_refused(cfg):
    cfg.DATALOADER.K_TRANSFORMS = 2
    with pytest.raises(UserError, match="K_TRANSFORMS: expected 1 without a transform, got 2"):
        DatasetWrapper(cfg, build_dataset(cfg).train_x, transform=None, is_train=True)


def test_custom_transforms_and_wrappers_are_used(cfg):
    class Wrapper(DatasetWrapper):
        pass

    manager = DataManager(cfg, T.Compose([T.CenterCrop(5), T.ToTensor()]), T.ToTensor(), Wrapper)
    assert next(iter(manager.train_loader_x))["img"].shape == (4, 3, 5, 5)
    assert next(iter(manager.test_loader))["img"].shape == (4, 3, 12, 14)
    assert isinstance(manager.val_loader.dataset, Wrapper)


def test_no_images_are_refused(cfg):
    with pytest.raises(UserError, match="expected images for testing in .* .Small., got none. Add some"):
        build_data_loader(cfg, data_source=[], is_train=False)
