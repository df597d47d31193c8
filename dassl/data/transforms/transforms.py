"""The transforms of training and test images.

The order is fixed, whatever the order of names in the config. Training:

resize (unless an image is cropped at random) - random_translation - random_crop - random_resized_crop - random_flip -
imagenet_policy - cifar10_policy - svhn_policy - randaugment - randaugment_fixmatch - randaugment2 - colorjitter -
randomgrayscale - gaussian_blur - to tensor - cutout - normalize - gaussian_noise - instance_norm

Test: resize the shorter side - center crop - to tensor - normalize - instance_norm (the last two if named).
"""

from collections.abc import Callable, Iterable, Sequence

import torchvision.transforms as T

from basics import UserError, log, notify
from dassl.data.transforms.augmentations import (
    MAX_MAGNITUDE,
    Cutout,
    GaussianNoise,
    InstanceNormalization,
    RandomMagnitudeAugment,
    RandomTranslation,
)
from dassl.utils import get_most_similar_str_to_a_from_b

INTERPOLATION_MODES = {
    "bilinear": T.InterpolationMode.BILINEAR,
    "bicubic": T.InterpolationMode.BICUBIC,
    "nearest": T.InterpolationMode.NEAREST,
}

# center_crop is accepted because configs of the family name it, but the test transform always has one.
CHOICES = (
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",
    "cutout",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "randaugment2",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
)

RANDAUGMENT2_P = 0.6  # probability of each operation of randaugment2 in Dassl


def build_transform(cfg, is_train: bool = True, choices: Sequence[str] | None = None) -> Callable | None:
    """Return the transform from a PIL image to a (3, H, W) float tensor.

    Args:
        cfg: the config; reads INPUT.*.
        is_train: for training (random) or for test images (not random).
        choices: names that replace ``cfg.INPUT.TRANSFORMS``.

    Returns:
        The transform; None if ``cfg.INPUT.NO_TRANSFORM``.

    Raises:
        UserError: an unknown transform or interpolation, or a magnitude out of range.
    """
    if cfg.INPUT.NO_TRANSFORM:
        notify("Note: no transform is applied")
        return None

    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in choices:
        _check_name(choice, CHOICES, "INPUT.TRANSFORMS")
    _check_name(cfg.INPUT.INTERPOLATION, INTERPOLATION_MODES, "INPUT.INTERPOLATION")
    if not 0 <= cfg.INPUT.RANDAUGMENT_M <= MAX_MAGNITUDE:
        raise UserError(f"INPUT.RANDAUGMENT_M: expected 0 to {MAX_MAGNITUDE}, got {cfg.INPUT.RANDAUGMENT_M}.")

    steps = _train_steps(cfg.INPUT, choices) if is_train else _test_steps(cfg.INPUT, choices)
    if cfg.VERBOSE:
        log(f"Transform of {'training' if is_train else 'test'} images: {', '.join(steps)}")
    return T.Compose(list(steps.values()))


def _check_name(name: str, offered: Iterable[str], key: str) -> None:
    if name not in offered:
        nearest = get_most_similar_str_to_a_from_b(name, offered)
        raise UserError(f"{key}: expected one of {', '.join(offered)}, got {name!r}. Did you mean {nearest!r}?")


def _train_steps(config, choices: Sequence[str]) -> dict[str, Callable]:
    """Return the chosen training transforms by name, in order; ``config`` is ``cfg.INPUT``."""
    size = config.SIZE  # (height, width)
    interpolation = INTERPOLATION_MODES[config.INTERPOLATION]
    on_images: dict[str, Callable[[], Callable]] = {
        "random_translation": lambda: RandomTranslation(size, interpolation),
        "random_crop": lambda: T.RandomCrop(size, padding=config.CROP_PADDING),
        "random_resized_crop": lambda: T.RandomResizedCrop(
            size, scale=config.RRCROP_SCALE, interpolation=interpolation
        ),
        "random_flip": T.RandomHorizontalFlip,
        "imagenet_policy": lambda: T.AutoAugment(T.AutoAugmentPolicy.IMAGENET),
        "cifar10_policy": lambda: T.AutoAugment(T.AutoAugmentPolicy.CIFAR10),
        "svhn_policy": lambda: T.AutoAugment(T.AutoAugmentPolicy.SVHN),
        "randaugment": lambda: T.RandAugment(config.RANDAUGMENT_N, config.RANDAUGMENT_M),
        "randaugment_fixmatch": lambda: RandomMagnitudeAugment(config.RANDAUGMENT_N),
        "randaugment2": lambda: RandomMagnitudeAugment(config.RANDAUGMENT_N, RANDAUGMENT2_P),
        "colorjitter": lambda: T.ColorJitter(
            config.COLORJITTER_B, config.COLORJITTER_C, config.COLORJITTER_S, config.COLORJITTER_H
        ),
        "randomgrayscale": lambda: T.RandomGrayscale(config.RGS_P),
        "gaussian_blur": lambda: T.RandomApply([T.GaussianBlur(config.GB_K)], config.GB_P),
    }
    on_tensors: dict[str, Callable[[], Callable]] = {
        "cutout": lambda: Cutout(config.CUTOUT_N, config.CUTOUT_LEN),
        "normalize": lambda: T.Normalize(config.PIXEL_MEAN, config.PIXEL_STD),
        "gaussian_noise": lambda: GaussianNoise(config.GN_MEAN, config.GN_STD),
        "instance_norm": InstanceNormalization,
    }
    steps: dict[str, Callable] = {}
    if not {"random_crop", "random_resized_crop"}.intersection(choices):
        steps["resize"] = T.Resize(size, interpolation)
    steps |= {name: make() for name, make in on_images.items() if name in choices}
    steps["to_tensor"] = T.ToTensor()
    steps |= {name: make() for name, make in on_tensors.items() if name in choices}
    return steps


def _test_steps(config, choices: Sequence[str]) -> dict[str, Callable]:
    """Return the test transforms by name, in order; ``config`` is ``cfg.INPUT``."""
    steps: dict[str, Callable] = {
        "resize": T.Resize(max(config.SIZE), INTERPOLATION_MODES[config.INTERPOLATION]),
        "center_crop": T.CenterCrop(config.SIZE),
        "to_tensor": T.ToTensor(),
    }
    if "normalize" in choices:
        steps["normalize"] = T.Normalize(config.PIXEL_MEAN, config.PIXEL_STD)
    if "instance_norm" in choices:
        steps["instance_norm"] = InstanceNormalization()
    return steps
