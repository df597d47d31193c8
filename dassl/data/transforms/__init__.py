"""Transforms from PIL images to tensors: those that a config names, in a fixed order."""

from dassl.data.transforms.transforms import CHOICES, INTERPOLATION_MODES, build_transform

__all__ = ["CHOICES", "INTERPOLATION_MODES", "build_transform"]
