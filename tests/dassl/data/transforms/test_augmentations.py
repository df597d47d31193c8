"""Our own augmentations do what their names say, and draw from torch's stream alone."""

import random

import numpy as np
import pytest
import torch
import torchvision.transforms as T

from dassl.data.transforms.augmentations import (
    Cutout,
    GaussianNoise,
    InstanceNormalization,
    RandomMagnitudeAugment,
    RandomTranslation,
)


def test_cutout_sets_one_square_to_zero_and_clips_it_at_the_border():
    torch.manual_seed(0)
    image = torch.ones(3, 12, 10)
    areas = set()
    for _ in range(1000):
        hole = Cutout(num_holes=1, length=4)(image)[0] == 0
        areas.add(hole.sum().item())
        rows, columns = hole.any(1).sum().item(), hole.any(0).sum().item()
        assert rows * columns == hole.sum()  # a rectangle
    assert max(areas) == 16 and min(areas) == 4
    assert image.min() == 1


def test_noise_is_added_to_half_of_the_images():
    torch.manual_seed(0)
    image = torch.zeros(3, 8, 8)
    noise = [GaussianNoise(0.5, 0.1)(image) for _ in range(400)]
    noisy = torch.stack([one for one in noise if one.any()])
    assert 150 < len(noisy) < 250
    assert noisy.mean().item() == pytest.approx(0.5, abs=0.01)
    assert noisy.std().item() == pytest.approx(0.1, abs=0.01)


def test_instance_normalization_maps_a_constant_channel_to_zero():
    image = torch.full((3, 4, 4), 0.5)
    assert torch.equal(InstanceNormalization()(image), torch.zeros(3, 4, 4))


def test_translation_crops_or_resizes(picture):
    size, bilinear = (16, 24), T.InterpolationMode.BILINEAR
    plain = T.Resize(size, bilinear)(picture)
    enlarged = T.Resize((18, 27), bilinear)(picture)
    assert RandomTranslation(size, bilinear, p=0.0)(picture) == plain
    moved = RandomTranslation(size, bilinear, p=1.0)(picture)
    crops = [enlarged.crop((x, y, x + 24, y + 16)) for x in range(4) for y in range(3)]
    assert moved.size == plain.size and moved in crops


def test_magnitudes_vary_between_calls_and_p_zero_changes_nothing(picture):
    torch.manual_seed(0)
    augment = RandomMagnitudeAugment(2)
    assert len({augment(picture).tobytes() for _ in range(20)}) > 10
    assert RandomMagnitudeAugment(2, p=0.0)(picture).tobytes() == picture.tobytes()


def test_only_torchs_stream_is_used(picture):
    states = random.getstate(), str(np.random.get_state())
    image = torch.rand(3, 8, 8)
    RandomTranslation((8, 8), T.InterpolationMode.BILINEAR)(picture)
    RandomMagnitudeAugment(2)(picture)
    Cutout(1, 4)(image)
    GaussianNoise(0.0, 1.0)(image)
    assert (random.getstate(), str(np.random.get_state())) == states
