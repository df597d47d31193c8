"""EuroSAT: 10 kinds of land seen by the Sentinel-2 satellite (Helber et al., "EuroSAT ...", IEEE JSTARS 2019).

Expected in the DATA folder: ``eurosat/2750/<kind>/*.jpg`` and, to use the CoOp family's split,
``eurosat/split_zhou_EuroSAT.json``.
"""

from dassl.data.datasets import DATASET_REGISTRY, Datum, FewShotDataset, read_class_folders, split_by_class

NAMES = {
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}


@DATASET_REGISTRY.register()
class EuroSAT(FewShotDataset):
    """EuroSAT (RGB). Without the split file, each kind of land is divided into 50 % train, 20 % val, 30 % test."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    prompt = "a centered satellite photo of {}."

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        return split_by_class(read_class_folders(self.image_dir, NAMES), rng=self.rng)
