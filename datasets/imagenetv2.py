"""ImageNetV2, matched frequency (Recht et al., "Do ImageNet Classifiers Generalize to ImageNet?", ICML 2019).

Expected in the DATA folder: ``imagenetv2/imagenetv2-matched-frequency-format-val/{0..999}/*.jpeg`` and
``imagenetv2/classnames.txt``, a copy of ImageNet's.
"""

from dassl.data.datasets import DATASET_REGISTRY, read_classnames

from .imagenet import ImageNetShift


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetShift):
    """New images of ImageNet's classes. For testing only."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"

    def classes(self, classnames: str) -> dict[str, str]:
        """Return class names by folder. Folders are numbers: places in ``classnames.txt``, counted from 0."""
        return {str(label): name for label, name in enumerate(read_classnames(classnames).values())}
