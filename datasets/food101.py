"""Food-101: 101 dishes (Bossard et al., "Food-101: Mining Discriminative Components with Random Forests", ECCV 2014).

Expected in the DATA folder: ``food-101/images/<dish>/*.jpg`` and, to use the CoOp family's split,
``food-101/split_zhou_Food101.json``.
"""

from dassl.data.datasets import DATASET_REGISTRY, Datum, FewShotDataset, read_class_folders, split_by_class


@DATASET_REGISTRY.register()
class Food101(FewShotDataset):
    """Food-101. Without the split file, each dish is divided into 50 % train, 20 % val, 30 % test."""

    dataset_dir = "food-101"
    image_dir = "images"
    split_file = "split_zhou_Food101.json"
    prompt = "a photo of {}, a type of food."

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        return split_by_class(read_class_folders(self.image_dir), rng=self.rng)
