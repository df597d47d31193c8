"""ImageNet-Sketch (Wang et al., "Learning Robust Global Representations by ...", NeurIPS 2019).

Expected in the DATA folder: ``imagenet-sketch/images/n*/*.JPEG`` and ``imagenet-sketch/classnames.txt``,
a copy of ImageNet's.
"""

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetShift


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetShift):
    """Sketches of ImageNet's classes. For testing only."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"
