"""Oxford-IIIT Pets: 37 breeds of cats and dogs (Parkhi et al., "Cats and Dogs", CVPR 2012).

Expected in the DATA folder: ``oxford_pets/images/*.jpg``, ``oxford_pets/annotations/{trainval,test}.txt`` and, to use
the CoOp family's split, ``oxford_pets/split_zhou_OxfordPets.json``.
"""

import os

from dassl.data.datasets import (
    DATASET_REGISTRY,
    Datum,
    FewShotDataset,
    read_annotations,
    read_split,
    save_split,
    split_trainval,
    subsample_classes,
)


@DATASET_REGISTRY.register()
class OxfordPets(FewShotDataset):
    """Oxford-IIIT Pets. Without the split file, 20 % of each breed's trainval images become val."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"
    prompt = "a photo of a {}, a type of pet."

    # Dataset files of the CoOp family call these four through this class.
    read_split = staticmethod(read_split)
    save_split = staticmethod(save_split)
    split_trainval = staticmethod(split_trainval)
    subsample_classes = staticmethod(subsample_classes)

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        trainval = self._read_annotations("trainval.txt")
        test = self._read_annotations("test.txt")
        train, val = split_trainval(trainval, rng=self.rng)
        return train, val, test

    def _read_annotations(self, name: str) -> list[Datum]:
        """Read images from an annotation file with lines such as ``Abyssinian_100 1 1 1``: image, breed id, ..."""

        def parse(line: str) -> Datum:
            image, breed_id, _, _ = line.split()
            breed = image.rpartition("_")[0].lower()
            return Datum(os.path.join(self.image_dir, f"{image}.jpg"), int(breed_id) - 1, classname=breed)

        path = os.path.join(self.dataset_dir, "annotations", name)
        return read_annotations(path, parse, "an image name and three numbers")
