"""Images in class folders, listed in sorted order so that no sample depends on the file system."""

import os
from collections.abc import Mapping

from basics import UserError
from dassl.data.datasets.base_dataset import Datum, list_folder

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


def list_images(folder: str | os.PathLike) -> list[str]:
    """Return the paths of all images below a folder, sorted, judged by their names. Hidden files are skipped.

    Raises:
        UserError: a folder cannot be listed.
    """
    images = []
    for name in list_folder(os.fspath(folder)):
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if os.path.isdir(path):
            images += list_images(path)
        elif name.lower().endswith(IMAGE_ENDINGS):
            images.append(path)
    return images


def class_folders(folder: str) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones.

    Raises:
        UserError: the folder does not exist, has no folders in it, or cannot be listed.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: expected a folder of class folders, got none. Unpack the dataset again.")
    entries = [name for name in list_folder(folder) if not name.startswith(".")]
    names = [name for name in entries if os.path.isdir(os.path.join(folder, name))]
    if not names:
        raise UserError(
            f"{folder}: expected class folders, got {len(entries):,} files. Put the images of each class into a "
            "folder of their own."
        )
    return names


def read_class_folders(folder: str, classes: Mapping[str, str] | None = None) -> list[Datum]:
    """Return all images in the given class folders, by class, and sorted by name within a class.

    Hidden files are skipped, and so are files whose names do not end like an image's (with a note).

    Args:
        folder: where the class folders are.
        classes: folder -> class name, in the order of the labels; None for all folders, sorted, under their own names.

    Raises:
        UserError: classes have no images (reports how many and the first three), or a folder cannot be listed.
    """
    if classes is None:
        classes = {name: name for name in class_folders(folder)}
    items, empty, others = [], [], []
    for label, (name, classname) in enumerate(classes.items()):
        place = os.path.join(folder, name)
        files = [file for file in list_folder(place) if not file.startswith(".")] if os.path.isdir(place) else []
        images = [file for file in files if file.lower().endswith(IMAGE_ENDINGS)]
        items += [Datum(os.path.join(place, file), label, classname=classname) for file in images]
        if not images:
            empty.append(name)
        if len(images) < len(files):
            others += [os.path.join(name, file) for file in files if not file.lower().endswith(IMAGE_ENDINGS)]
    if empty:
        raise UserError(
            f"{folder}: expected images in {len(classes):,} class folders, got none in {len(empty):,}, first: "
            f"{', '.join(empty[:3])}."
        )
    if others:
        print(
            f"Note: skipped {len(others):,} files in {folder} that do not have an image's name: {', '.join(others[:3])}"
        )
    return items
