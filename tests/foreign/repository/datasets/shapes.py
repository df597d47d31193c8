import os
import pickle
import random

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import listdir_nohidden, mkdir_if_missing, read_json, write_json


@DATASET_REGISTRY.register()
class Shapes(DatasetBase):
    dataset_dir = "shapes"

    def __init__(self, cfg):
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, "images")
        self.split_path = os.path.join(self.dataset_dir, "split.json")
        self.split_fewshot_dir = os.path.join(self.dataset_dir, "split_fewshot")
        mkdir_if_missing(self.split_fewshot_dir)

        if not os.path.exists(self.split_path):
            write_json(self.make_split(), self.split_path)
        train, val, test = (self.read_part(part) for part in ("train", "val", "test"))

        num_shots = cfg.DATASET.NUM_SHOTS
        if num_shots >= 1:
            preprocessed = os.path.join(self.split_fewshot_dir, f"shot_{num_shots}-seed_{cfg.SEED}.pkl")
            if os.path.exists(preprocessed):
                print(f"Loading preprocessed few-shot data from {preprocessed}")
                with open(preprocessed, "rb") as file:
                    data = pickle.load(file)
                train, val = data["train"], data["val"]
            else:
                train = self.generate_fewshot_dataset(train, num_shots=num_shots)
                val = self.generate_fewshot_dataset(val, num_shots=min(num_shots, 4))
                print(f"Saving preprocessed few-shot data to {preprocessed}")
                with open(preprocessed, "wb") as file:
                    pickle.dump({"train": train, "val": val}, file, protocol=pickle.HIGHEST_PROTOCOL)

        train, val, test = subsample_classes(train, val, test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=train, val=val, test=test)

    def make_split(self):
        split = {"train": [], "val": [], "test": []}
        for label, name in enumerate(listdir_nohidden(self.image_dir, sort=True)):
            files = sorted(listdir_nohidden(os.path.join(self.image_dir, name)))
            random.Random(label).shuffle(files)
            for i, file in enumerate(files):
                part = "train" if i < len(files) // 2 else "val" if i < 3 * len(files) // 4 else "test"
                split[part].append((os.path.join(name, file), label, name))
        return split

    def read_part(self, part):
        items = read_json(self.split_path)[part]
        return [
            Datum(impath=os.path.join(self.image_dir, path), label=int(y), classname=name) for path, y, name in items
        ]


def subsample_classes(*parts, subsample="all"):
    assert subsample in ["all", "base", "new"]
    if subsample == "all":
        return parts
    labels = sorted({item.label for item in parts[0]})
    middle = (len(labels) + 1) // 2
    kept = labels[:middle] if subsample == "base" else labels[middle:]
    relabeled = {label: i for i, label in enumerate(kept)}
    return [
        [
            Datum(impath=item.impath, label=relabeled[item.label], classname=item.classname)
            for item in part
            if item.label in relabeled
        ]
        for part in parts
    ]
