"""ImageNet: 1,000 classes (Deng et al., CVPR 2009; Russakovsky et al., "ImageNet Large Scale ...", IJCV 2015).

Expected in the DATA folder: ``imagenet/images/{train,val}/n*/*.JPEG`` and ``imagenet/classnames.txt``.

The images of a class are listed in sorted order. The original uses the file system's order, so its sample
for a seed differs from machine to machine; ours does not, and equals the original's only where both orders agree.
"""

import os
from pathlib import Path

from dassl.data.datasets import (
    DATASET_REGISTRY,
    Datum,
    FewShotDataset,
    class_folders,
    name_classes,
    read_class_folders,
    report_pickle,
)


@DATASET_REGISTRY.register()
class ImageNet(FewShotDataset):
    """ImageNet. Its 50,000 validation images are the test images, and also the validation images; none are sampled."""

    dataset_dir = "imagenet"
    image_dir = "images"

    def read(self, root: str) -> tuple[list[Datum], list[Datum], list[Datum]]:
        report_pickle(Path(self.dataset_dir, "preprocessed.pkl"), "the folders are listed")
        train, test = (os.path.join(self.image_dir, part) for part in ("train", "val"))
        classes = name_classes(class_folders(train), os.path.join(self.dataset_dir, "classnames.txt"))
        return read_class_folders(train, classes), [], read_class_folders(test, classes)

    @property
    def val(self) -> list[Datum]:
        return self.test


class ImageNetShift(FewShotDataset):
    """A test set for models that were trained on ImageNet: class folders ``n*``, and ImageNet's ``classnames.txt``."""

    test_only = True

    def read(self, root: str) -> tuple[list[Datum], list[Datum], list[Datum]]:
        items = read_class_folders(self.image_dir, self.classes(os.path.join(self.dataset_dir, "classnames.txt")))
        return items, [], items

    def classes(self, classnames: str) -> dict[str, str]:
        """Return class names by folder, in the order of the labels; ``classnames``: path of the file with the names."""
        return name_classes(class_folders(self.image_dir), classnames)
