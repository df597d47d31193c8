"""Pictures in class folders, listed in sorted order, so that no draw depends on the file system."""

import os
from collections.abc import Mapping

from basics import UserError
from dassl.data.datasets.base_dataset import Datum, list_folder

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


def class_folders(folder: str) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones.

    Raises:
        UserError: there is no such folder, none in it, or it cannot be listed.
    """
    if not os.path.isdir(folder):
        raise UserError(f"expected a folder of class folders at {folder}, found none. Unpack the data set again")
    entries = [name for name in list_folder(folder) if not name.startswith(".")]
    names = [name for name in entries if os.path.isdir(os.path.join(folder, name))]
    if not names:
        raise UserError(
            f"{folder} holds no class folders, but {len(entries):,} files. Put the pictures of each class "
            "into a folder of its own"
        )
    return names


def read_class_folders(folder: str, classes: Mapping[str, str] | None = None) -> list[Datum]:
    """All pictures of the given class folders: by class, and sorted by name within a class.

    Hidden files are left out, and so are files whose names do not end like a picture's (with a note).

    Args:
        folder: where the class folders are.
        classes: name of each class by its folder, in the order of the labels; None: all folders, sorted, under their
            own names.

    Raises:
        UserError: classes have no pictures (says how many and the first three), or a folder cannot be listed.
    """
    if classes is None:
        classes = {name: name for name in class_folders(folder)}
    items, empty, others = [], [], []
    for label, (name, classname) in enumerate(classes.items()):
        place = os.path.join(folder, name)
        files = [file for file in list_folder(place) if not file.startswith(".")] if os.path.isdir(place) else []
        pictures = [file for file in files if file.lower().endswith(PICTURES)]
        items += [Datum(os.path.join(place, file), label, classname=classname) for file in pictures]
        if not pictures:
            empty.append(name)
        if len(pictures) < len(files):
            others += [os.path.join(name, file) for file in files if not file.lower().endswith(PICTURES)]
    if empty:
        raise UserError(
            f"{folder}: {len(empty):,} of {len(classes):,} class folders are not there or hold no pictures, first: "
            f"{', '.join(empty[:3])}"
        )
    if others:
        print(f"Note: {len(others):,} files in {folder} are no pictures by their names: {', '.join(others[:3])}")
    return items
