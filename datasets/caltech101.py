"""Caltech 101: images of 100 kinds of things (Fei-Fei et al., "Learning generative visual models ...", CVPRW 2004).

Expected in the DATA folder: ``caltech-101/101_ObjectCategories/<class>/*.jpg`` and, to use the CoOp family's split,
``caltech-101/split_zhou_Caltech101.json``.
"""

from dassl.data.datasets import (
    DATASET_REGISTRY,
    Datum,
    FewShotDataset,
    class_folders,
    read_class_folders,
    split_by_class,
)

IGNORED = ("BACKGROUND_Google", "Faces_easy")
NEW_NAMES = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}


@DATASET_REGISTRY.register()
class Caltech101(FewShotDataset):
    """Caltech 101 without the background and the second set of faces. Without the split file: 50/20/30 % a class."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        folders = [folder for folder in class_folders(self.image_dir) if folder not in IGNORED]
        items = read_class_folders(self.image_dir, {folder: NEW_NAMES.get(folder, folder) for folder in folders})
        return split_by_class(items, rng=self.rng)
