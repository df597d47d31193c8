"""The transforms equal a torchvision pipeline composed by hand, byte for byte."""

import pytest
import torch
import torchvision.transforms as T

from basics import UserError
from dassl.data.transforms import CHOICES, build_transform

BICUBIC = T.InterpolationMode.BICUBIC
SIZE = (8, 6)  # height and width differ, so that they cannot be confused


@pytest.fixture
def cfg(cfg):
    cfg.INPUT.SIZE = SIZE
    return cfg


def assert_same(ours, by_hand, picture):
    for seed in range(5):
        torch.manual_seed(seed)
        mine = ours(picture)
        torch.manual_seed(seed)
        assert torch.equal(mine, by_hand(picture))


def normalize(cfg):
    return T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)


def test_coops_training_images_are_cropped_flipped_and_normalized(cfg, picture):
    by_hand = T.Compose(
        [
            T.RandomResizedCrop(SIZE, scale=(0.08, 1.0), interpolation=BICUBIC),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            normalize(cfg),
        ]
    )
    assert_same(build_transform(cfg), by_hand, picture)


def test_test_images_are_resized_cropped_and_normalized(cfg, picture):
    by_hand = T.Compose([T.Resize(8, BICUBIC), T.CenterCrop(SIZE), T.ToTensor(), normalize(cfg)])
    assert_same(build_transform(cfg, is_train=False), by_hand, picture)


def test_training_images_without_a_crop_are_resized_to_the_size(cfg, picture):
    by_hand = T.Compose([T.Resize(SIZE, BICUBIC), T.ToTensor()])
    assert_same(build_transform(cfg, choices=[]), by_hand, picture)


def test_all_of_torchvisions_transforms_come_in_the_fixed_order(cfg, picture):
    cfg.INPUT.GB_K = 3
    cfg.INPUT.CROP_PADDING = 20
    by_hand = T.Compose(
        [
            T.RandomCrop(SIZE, padding=20),
            T.RandomResizedCrop(SIZE, scale=(0.08, 1.0), interpolation=BICUBIC),
            T.RandomHorizontalFlip(),
            T.AutoAugment(T.AutoAugmentPolicy.IMAGENET),
            T.AutoAugment(T.AutoAugmentPolicy.CIFAR10),
            T.AutoAugment(T.AutoAugmentPolicy.SVHN),
            T.RandAugment(2, 10),
            T.ColorJitter(0.4, 0.4, 0.4, 0.1),
            T.RandomGrayscale(0.2),
            T.RandomApply([T.GaussianBlur(3)], 0.5),
            T.ToTensor(),
            normalize(cfg),
        ]
    )
    names = ["random_crop", "random_resized_crop", "random_flip", "imagenet_policy", "cifar10_policy", "svhn_policy"]
    names += ["randaugment", "colorjitter", "randomgrayscale", "gaussian_blur", "normalize"]
    assert_same(build_transform(cfg, choices=names[::-1]), by_hand, picture)


@pytest.mark.parametrize("choice", CHOICES)
def test_each_transform_keeps_the_size(cfg, picture, choice):
    cfg.INPUT.GB_K = 3
    for is_train in (True, False):
        image = build_transform(cfg, is_train, choices=[choice, "random_resized_crop"])(picture)
        assert image.shape == (3, *SIZE) and image.isfinite().all()


def test_instance_norm_applies_to_test_images(cfg, picture):
    image = build_transform(cfg, is_train=False, choices=["instance_norm"])(picture)
    torch.testing.assert_close(image.mean((1, 2)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(image.std((1, 2)), torch.ones(3))


def test_no_transform_leaves_images_unchanged(cfg, capsys):
    cfg.INPUT.NO_TRANSFORM = True
    assert build_transform(cfg) is None
    assert "no transform is applied" in capsys.readouterr().err


def test_the_steps_are_printed(cfg, capsys):
    cfg.VERBOSE = True
    build_transform(cfg)
    assert capsys.readouterr().out == (
        "Transform of training images: random_resized_crop, random_flip, to_tensor, normalize\n"
    )


def test_unknown_names_and_magnitudes_are_refused(cfg):
    with pytest.raises(UserError, match=r"TRANSFORMS: expected .*got 'random_flop'. Did you mean 'random_flip'\?"):
        build_transform(cfg, choices=["random_flop"])
    cfg.INPUT.RANDAUGMENT_M = 31
    with pytest.raises(UserError, match=r"RANDAUGMENT_M: expected 0 to 30, got 31"):
        build_transform(cfg)
    cfg.INPUT.INTERPOLATION = "cubic"
    with pytest.raises(UserError, match=r"INPUT.INTERPOLATION: expected .*got 'cubic'. Did you mean 'bicubic'\?"):
        build_transform(cfg)
