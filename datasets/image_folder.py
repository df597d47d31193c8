"""Your own photos: a folder of class folders, or a CSV file. No code is needed.

``DATASET.ROOT`` is one of

- a folder of class folders: ``photos/<class>/*.jpg``. Half of each class is train, 20 % val and 30 % test. That split
  is sampled from a fixed seed: it is the same for every SEED, as long as the images are the same;
- a folder of parts: ``photos/{train,val,test}/<class>/*.jpg``. Without ``test/``, ``val/`` is the test set, as in
  ImageNet, unless TEST.NO_TEST; with ``train/`` alone, its classes are split as above;
- a CSV file with the header ``path,label`` or ``path,label,split`` (train, val or test); paths are relative to it.

The classes are the folders (or labels) in sorted order. Their names are the folders' with ``_`` as spaces, or those of
a ``classnames.txt`` next to them with lines such as ``folder the class name``, separated by a tab where a folder's
name has spaces.
"""

import csv
import os
import random
from collections import Counter

from basics import UserError
from dassl.data.datasets import (
    DATASET_REGISTRY,
    Datum,
    FewShotDataset,
    check_images,
    class_folders,
    name_classes,
    read_class_folders,
    split_by_class,
)

PARTS = ("train", "val", "test")
SPLIT_SEED = 0  # of the split that is made here; cfg.SEED draws the shots, and must not move the test set
HEADERS = (["path", "label"], ["path", "label", "split"])


@DATASET_REGISTRY.register()
class ImageFolder(FewShotDataset):
    """Images in class folders, with or without train/, val/ and test/, or named by a CSV file."""

    def find_root(self, cfg) -> str:
        """Return the folder of the images, or of the CSV file."""
        if not cfg.DATASET.ROOT:
            raise UserError("DATASET.ROOT: expected a folder of class folders or a CSV file, got nothing. Set --root.")
        path = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        if not os.path.exists(path):
            raise UserError(
                f"DATASET.ROOT: expected a folder of class folders or a CSV file, got {path}, which does not exist."
            )
        self._table = "" if os.path.isdir(path) else path
        self._needs_test = not cfg.TEST.NO_TEST
        if not self._table:
            return path
        folder, file = os.path.split(path)
        self.record_dir = os.path.join(self.record_dir, file)  # several tables may name images of one folder
        return folder

    def read(self, root: str) -> tuple[list[Datum], list[Datum], list[Datum]]:
        parts = self._read_table() if self._table else self._read_folders(root)
        if "test" not in parts and "val" in parts and self._needs_test:
            print("Note: no test images; using val as the test set")
            parts["test"] = parts.pop("val")
        if "test" in parts or "val" in parts:
            return parts.get("train", []), parts.get("val", []), parts.get("test", [])
        return split_by_class(parts["train"], rng=random.Random(SPLIT_SEED))

    def _read_folders(self, root: str) -> dict[str, list[Datum]]:
        """Read the images of each part that has a folder; without such folders, all of them as train."""
        folders = [name for name in class_folders(root) if name != self.record_dir]
        if "train" not in folders or not set(folders) <= set(PARTS):
            return {"train": read_class_folders(root, self._names(folders))}
        classes = self._names(class_folders(os.path.join(root, "train")))
        parts = {}
        for part in folders:
            folder = os.path.join(root, part)
            unknown = [name for name in class_folders(folder) if name not in classes]
            if unknown:
                raise UserError(
                    f"{folder}: expected the class folders of train/, got {len(unknown)} others: "
                    f"{', '.join(unknown[:3])}."
                )
            parts[part] = read_class_folders(folder, classes)
        return parts

    def _read_table(self) -> dict[str, list[Datum]]:
        """Read the images of each part that the table's column split names; without it, all of them as train."""
        rows = read_rows(self._table)
        names = self._names(sorted({row["label"] for row in rows}))
        labels = {folder: label for label, folder in enumerate(names)}
        parts: dict[str, list[Datum]] = {}
        for row in rows:
            path, folder = os.path.join(self.dataset_dir, row["path"]), row["label"]
            datum = Datum(path, labels[folder], classname=names[folder])
            parts.setdefault(row.get("split", "train"), []).append(datum)
        check_images([datum for items in parts.values() for datum in items], self._table)
        return parts

    def _names(self, folders: list[str]) -> dict[str, str]:
        """Return class names by folder, in the order of the labels."""
        path = os.path.join(self.dataset_dir, "classnames.txt")
        if os.path.isfile(path):
            return name_classes(folders, path)
        return {folder: folder.replace("_", " ") for folder in folders}


def read_rows(path: str) -> list[dict[str, str]]:
    """Read the rows of a CSV file with one of HEADERS, as dicts without spaces at the values' ends.

    Raises:
        UserError: not such a file; a row is incomplete or names no part; an image is named twice.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets write a byte-order mark
            header, *rows = [[value.strip() for value in row] for row in csv.reader(file, strict=True) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: expected a CSV file, got an error: {error}.") from error
    if header not in HEADERS or not rows:
        raise UserError(
            f"{path}: expected the header path,label or path,label,split and a line for each image, got "
            f"{','.join(header)!r} and {len(rows)} lines."
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header) or not all(row) or (len(row) == 3 and row[2] not in PARTS):
            parts = f" (split: {', '.join(PARTS)})" if len(header) == 3 else ""
            raise UserError(f"{path}, image {number}: expected {','.join(header)}{parts}, got {','.join(row)!r}.")
    twice = [name for name, count in Counter(row[0] for row in rows).items() if count > 1]
    if twice:
        raise UserError(f"{path}: expected each image once, got {len(twice)} repeated ones: {', '.join(twice[:3])}.")
    return [dict(zip(header, row, strict=True)) for row in rows]
