"""Your own photos: a folder of class folders, a CSV file, or a split file. No code is needed.

``DATASET.ROOT`` is one of

- a folder of class folders: ``photos/<class>/*.jpg``. Half of each class is train, 20 % val and 30 % test. That split
  is sampled from a fixed seed: it is the same for every SEED, as long as the images are the same. Of a class with fewer
  than 4 images, at least half are train and the rest is test. DATASET.HOLD_OUT False makes all of them train;
- a folder of parts: ``photos/{train,val,test}/<class>/*.jpg``, also by other common names (see layouts.py). Without
  ``test/``, ``val/`` is the test set, as in ImageNet, unless TEST.NO_TEST; with ``train/`` alone, its classes are split
  as above; ``test/`` alone is for ``--eval-only`` and for methods that train nothing;
- a CSV file with columns such as ``path,label`` or ``path,label,split`` (see tables.py); paths are relative to it;
- a split file of the CoOp family, ``*.json``; paths are relative to it.

The classes are the folders (or labels) of all parts in sorted order; DATASET.CLASS_LEVEL says how deep the folders are.
Their names are the folders' with ``_`` as spaces (see names.py), or those of a ``classnames.txt`` next to them with
lines such as ``folder the class name``, separated by a tab where a folder's name has spaces.

Nothing is written to the folder: few-shot samples are recorded in the cache.
"""

import os
import random

from basics import UserError, notify
from dassl.data.datasets import (
    DATASET_REGISTRY,
    Datum,
    FewShotDataset,
    check_images,
    class_names,
    doubts,
    name_classes,
    read_layout,
    read_split,
    read_table,
    split_by_class,
)

SPLIT_SEED = 0  # of the split that is made here; cfg.SEED draws the shots, and must not move the test set


@DATASET_REGISTRY.register()
class ImageFolder(FewShotDataset):
    """Images in class folders, with or without train/, val/ and test/, or named by a CSV file or a split file."""

    own_images = True

    def __init__(self, cfg):
        self._options = cfg.DATASET
        super().__init__(cfg)

    def find_root(self, cfg) -> str:
        """Return the folder of the images, or of the CSV file."""
        if not cfg.DATASET.ROOT:
            raise UserError("DATASET.ROOT: expected a folder of class folders or a CSV file, got nothing. Set --root.")
        path = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        if not os.path.exists(path):
            raise UserError(
                f"DATASET.ROOT: expected a folder of class folders or a CSV file, got {path}, which does not exist. "
                "Check the path."
            )
        self._table = "" if os.path.isdir(path) else path
        self._needs_test = not cfg.TEST.NO_TEST
        if not self._table:
            return path
        folder, file = os.path.split(path)
        self.record_dir = os.path.join(self.record_dir, file)  # several tables may name images of one folder
        return folder

    def read(self, root: str) -> tuple[list[Datum], list[Datum], list[Datum]]:
        parts = self._read_parts(root)
        items = [item for found in parts.values() for item in found]
        check_images(items, self._table or root)
        parts = self._divide(parts)
        for line in doubts(parts, sorted({item.classname for item in items}), root):
            notify(f"Note: {line}")
        if not parts["train"]:
            notify("Note: no training images; testing only")
            self.test_only = True
            self.how_to_train = f"Add training images to {self._table or root}, or train on others"
            return parts["test"], parts["val"], parts["test"]
        return parts["train"], parts["val"], parts["test"]

    def _read_parts(self, root: str) -> dict[str, list[Datum]]:
        """Read the images of each part that has some; without parts, all of them as train."""
        if self._table.lower().endswith(".json"):
            return dict(zip(("train", "val", "test"), read_split(self._table, root), strict=True))
        if self._table:
            found = self._read_table(root)
        else:
            found = read_layout(root, self._options.CLASS_LEVEL, skipped=self.record_dir)
        names = self._names(sorted({folder for images in found.values() for _, folder in images}))
        labels = {folder: label for label, folder in enumerate(names)}
        parts: dict[str, list] = dict(found)
        for images in parts.values():
            for place, (path, folder) in enumerate(images):  # in place, so that there is no second list
                images[place] = Datum(path, labels[folder], classname=names[folder])
        return parts

    def _read_table(self, root: str) -> dict[str, list[tuple[str, str]]]:
        parts: dict[str, list[tuple[str, str]]] = {}
        rows = read_table(self._table, self._options.COLUMNS)
        rows.reverse()
        while rows:  # so that each row is freed when it has been read
            name, label, part = rows.pop()
            path = os.path.join(root, name)
            if "\\" in name and not os.path.exists(path):
                path = os.path.join(root, name.replace("\\", os.sep))  # written on Windows
            parts.setdefault(part or "train", []).append((path, label))
        return parts

    def _divide(self, parts: dict[str, list[Datum]]) -> dict[str, list[Datum]]:
        """Return train, val and test: those that exist, or else made from the training images."""
        parts = {"train": [], "val": [], "test": []} | {part: found for part, found in parts.items() if found}
        if not parts["test"] and parts["val"] and self._needs_test:
            notify("Note: no test images; using val as the test set")
            parts["test"], parts["val"] = parts["val"], []
        if parts["test"] or parts["val"] or not self._options.HOLD_OUT:
            return parts
        train, val, test = split_by_class(parts["train"], rng=random.Random(SPLIT_SEED), refuse_small=False)
        notify(
            f"Held out of training: {len(val):,} val and {len(test):,} test images of {len(parts['train']):,}. To hold "
            "out none, set DATASET.HOLD_OUT False."
        )
        return {"train": train, "val": val, "test": test}

    def _names(self, folders: list[str]) -> dict[str, str]:
        """Return class names by folder, in the order of the labels."""
        path = os.path.join(self.dataset_dir, "classnames.txt")
        if os.path.isfile(path):
            return name_classes(folders, path)
        return class_names(folders, path, self._options.STRIP_NUMBERS)
