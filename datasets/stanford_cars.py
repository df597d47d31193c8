"""Stanford Cars: 196 models (Krause et al., "3D Object Representations for Fine-Grained Categorization", 2013).

Expected in the DATA folder: ``stanford_cars/cars_train/*.jpg``, ``stanford_cars/cars_test/*.jpg`` and, to use the CoOp
family's split, ``stanford_cars/split_zhou_StanfordCars.json``; without it, ``devkit/cars_train_annos.mat``,
``devkit/cars_meta.mat`` and ``cars_test_annos_withlabels.mat`` next to it.
"""

import os

from dassl.data.datasets import DATASET_REGISTRY, Datum, FewShotDataset, read_mat, split_trainval


@DATASET_REGISTRY.register()
class StanfordCars(FewShotDataset):
    """Stanford Cars. Without the split file, 20 % of each model's training images become val."""

    dataset_dir = "stanford_cars"
    split_file = "split_zhou_StanfordCars.json"

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        meta = os.path.join(self.dataset_dir, "devkit", "cars_meta.mat")
        names = dict(enumerate(read_mat(meta, "class_names", year_first, "a name that ends in the year"), start=1))
        trainval = self._read_annotations("cars_train", os.path.join("devkit", "cars_train_annos.mat"), names)
        test = self._read_annotations("cars_test", "cars_test_annos_withlabels.mat", names)
        train, val = split_trainval(trainval, rng=self.rng)
        return train, val, test

    def _read_annotations(self, folder: str, file: str, names: dict[int, str]) -> list[Datum]:
        """Read images of a folder from records with ``fname`` and ``class``, which counts from 1."""

        def parse(record) -> Datum:
            number = int(record["class"])
            return Datum(os.path.join(self.image_dir, folder, record["fname"]), number - 1, classname=names[number])

        path = os.path.join(self.dataset_dir, file)
        return read_mat(path, "annotations", parse, f"fname and class, a number from 1 to {len(names)}")


def year_first(name: str) -> str:
    """Move the year to the front: "Acura TL Sedan 2012" -> "2012 Acura TL Sedan"."""
    *model, year = name.split(" ")
    return " ".join([year, *model])
