"""ImageNet-R (Hendrycks et al., "The Many Faces of Robustness", ICCV 2021).

Expected in the DATA folder: ``imagenet-rendition/imagenet-r/n*/*.jpg`` and ``imagenet-rendition/classnames.txt``,
a copy of ImageNet's.
"""

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetShift


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetShift):
    """Paintings, toys, cartoons and other renditions of 200 ImageNet classes. For testing only."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
