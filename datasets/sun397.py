"""SUN397: 397 kinds of scenes (Xiao et al., "SUN Database: Large-scale Scene Recognition ...", CVPR 2010).

Expected in the DATA folder: ``sun397/SUN397/<letter>/<scene>/*.jpg`` and, to use the CoOp family's split,
``sun397/split_zhou_SUN397.json``; without it, ``ClassName.txt``, ``Training_01.txt`` and ``Testing_01.txt`` next to it.
"""

import os

from dassl.data.datasets import DATASET_REGISTRY, Datum, FewShotDataset, read_annotations, split_trainval


@DATASET_REGISTRY.register()
class SUN397(FewShotDataset):
    """SUN397, first partition. Without the split file, 20 % of each scene's training images become val."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        folders = read_annotations(os.path.join(self.dataset_dir, "ClassName.txt"), relative, "a scene's folder")
        labels = {folder: label for label, folder in enumerate(folders)}

        def parse(line: str) -> Datum:
            image = relative(line)
            folder = os.path.dirname(image)
            return Datum(os.path.join(self.image_dir, image), labels[folder], classname=scene_name(folder))

        trainval, test = (
            read_annotations(os.path.join(self.dataset_dir, file), parse, "an image in a folder of ClassName.txt")
            for file in ("Training_01.txt", "Testing_01.txt")
        )
        train, val = split_trainval(trainval, rng=self.rng)
        return train, val, test


def relative(path: str) -> str:
    """Make a path relative: "/a/abbey" -> "a/abbey". Raise ValueError without the slash."""
    if not path.startswith("/"):
        raise ValueError(path)
    return path[1:]


def scene_name(folder: str) -> str:
    """Name a scene by its folder's parts below the letter, last one first: "c/church/indoor" -> "indoor church"."""
    return " ".join(reversed(folder.split("/")[1:]))
