"""FGVC Aircraft: 100 variants (Maji et al., "Fine-Grained Visual Classification of Aircraft", arXiv:1306.5151).

Expected in the DATA folder: the archive's ``data/`` as ``fgvc_aircraft/``, with ``images/*.jpg``, ``variants.txt`` and
``images_variant_{train,val,test}.txt``. The split is the dataset's own.
"""

import os

from dassl.data.datasets import DATASET_REGISTRY, Datum, FewShotDataset, check_images, read_annotations


@DATASET_REGISTRY.register()
class FGVCAircraft(FewShotDataset):
    """FGVC Aircraft, by variant, with the official train, val and test images."""

    dataset_dir = "fgvc_aircraft"
    image_dir = "images"
    prompt = "a photo of a {}, a type of aircraft."

    def read(self, root: str) -> tuple[list[Datum], list[Datum], list[Datum]]:
        variants = read_annotations(os.path.join(self.dataset_dir, "variants.txt"), str, "a variant")
        labels = {variant: label for label, variant in enumerate(variants)}

        def parse(line: str) -> Datum:
            """Split "0034309 F/A-18" into the image and, after the first space, its variant."""
            image, variant = line.split(" ", maxsplit=1)
            return Datum(os.path.join(self.image_dir, f"{image}.jpg"), labels[variant], classname=variant)

        parts = tuple(
            read_annotations(
                os.path.join(self.dataset_dir, f"images_variant_{part}.txt"),
                parse,
                "an image and one of variants.txt",
            )
            for part in ("train", "val", "test")
        )
        check_images([item for items in parts for item in items], type(self).__name__)
        return parts
