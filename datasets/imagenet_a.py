"""ImageNet-A (Hendrycks et al., "Natural Adversarial Examples", CVPR 2021).

Expected in the DATA folder: ``imagenet-adversarial/imagenet-a/n*/*.jpg`` and ``imagenet-adversarial/classnames.txt``,
a copy of ImageNet's.
"""

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetShift


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetShift):
    """Natural images of 200 ImageNet classes that a ResNet-50 misclassifies. For testing only."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
