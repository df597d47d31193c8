"""Describable Textures: 47 kinds of texture (Cimpoi et al., "Describing Textures in the Wild", CVPR 2014).

Expected in the DATA folder: ``dtd/images/<texture>/*.jpg`` and, to use the CoOp family's split,
``dtd/split_zhou_DescribableTextures.json``.
"""

from dassl.data.datasets import DATASET_REGISTRY, Datum, FewShotDataset, read_class_folders, split_by_class


@DATASET_REGISTRY.register()
class DescribableTextures(FewShotDataset):
    """Describable Textures. Without the split file, each texture is divided into 50 % train, 20 % val, 30 % test."""

    dataset_dir = "dtd"
    image_dir = "images"
    split_file = "split_zhou_DescribableTextures.json"
    prompt = "{} texture."

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        return split_by_class(read_class_folders(self.image_dir), rng=self.rng)
