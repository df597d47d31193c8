"""Oxford Flowers 102 (Nilsback and Zisserman, "Automated Flower Classification ...", ICVGIP 2008).

Expected in the DATA folder: ``oxford_flowers/jpg/image_*.jpg`` and, to use the CoOp family's split,
``oxford_flowers/split_zhou_OxfordFlowers.json``; without it, ``imagelabels.mat`` and ``cat_to_name.json`` next to it.
"""

import os

from basics import UserError, read_json
from dassl.data.datasets import DATASET_REGISTRY, Datum, FewShotDataset, read_mat, split_by_class


@DATASET_REGISTRY.register()
class OxfordFlowers(FewShotDataset):
    """Oxford Flowers. Without the split file, each kind is divided into 50 % train, 20 % val, 30 % test."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    prompt = "a photo of a {}, a type of flower."

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        """Split the images by their labels: one number per image, counted from 1, in the order of the images."""
        labels = read_mat(os.path.join(self.dataset_dir, "imagelabels.mat"), "labels", int, "a number")
        path = os.path.join(self.dataset_dir, "cat_to_name.json")
        names = read_json(path)
        if not isinstance(names, dict):
            raise UserError(f"{path}: expected names by number, got {type(names).__name__}. Download the file again.")
        unnamed = sorted(label for label in set(labels) if str(label) not in names)
        if unnamed:
            raise UserError(
                f"{path}: expected names of {len(set(labels))} kinds, got none for {len(unnamed)}: {unnamed[:3]}. "
                "Download it again."
            )
        items = [
            Datum(os.path.join(self.image_dir, f"image_{number:05}.jpg"), label - 1, classname=names[str(label)])
            for number, label in enumerate(labels, start=1)
        ]
        return split_by_class(items, rng=self.rng)
