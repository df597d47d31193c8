"""Images in class folders, listed in sorted order so that no sample depends on the file system."""

import os
from collections.abc import Iterable, Mapping

from basics import UserError, notify
from dassl.data.datasets.base_dataset import Datum, scan_folder
from dassl.utils.images import is_image, why_not_read

# Folders that operating systems and tools create next to what they unpack or index.
CLUTTER = {
    "__MACOSX", ".ipynb_checkpoints", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "__pycache__"
}  # fmt: skip


def is_clutter(name: str) -> bool:
    """Return whether a file or folder of this name is skipped without a look: hidden ones, and those of CLUTTER."""
    return name.startswith(".") or name in CLUTTER


def list_files(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Return the paths of all images and of all other files below a folder, sorted folder by folder.

    Hidden files and CLUTTER are skipped, and so are links that lead back to a folder above them.

    Raises:
        UserError: a folder cannot be listed.
    """
    images: list[str] = []
    others: list[str] = []
    for entry in scan_folder(os.fspath(folder)):
        if is_clutter(entry.name) or entry.is_symlink() and _leads_back(entry.path):
            continue
        if entry.is_dir():
            below = list_files(entry.path)
            images += below[0]
            others += below[1]
        else:
            (images if is_image(entry.path) else others).append(entry.path)
    return images, others


def _leads_back(link: str) -> bool:
    target = os.path.join(os.path.realpath(link), "")
    return os.path.join(os.path.realpath(os.path.dirname(link)), "").startswith(target)


def class_folders(folder: str) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones and CLUTTER.

    Raises:
        UserError: the folder does not exist, has no folders in it, or cannot be listed.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: expected a folder of class folders, got none. Unpack the dataset again.")
    entries = [entry for entry in scan_folder(folder) if not is_clutter(entry.name)]
    names = [entry.name for entry in entries if entry.is_dir()]
    if not names:
        raise UserError(
            f"{folder}: expected class folders, got {len(entries):,} files. Put the images of each class into a "
            "folder of their own."
        )
    return names


def read_class_folders(folder: str, classes: Mapping[str, str] | None = None) -> list[Datum]:
    """Return all images below the given class folders, by class, and sorted by name within a class.

    Hidden files are skipped, and so are files that are no images (with a note).

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
        images, skipped = list_files(place) if os.path.isdir(place) else ([], [])
        items += [Datum(path, label, classname=classname) for path in images]
        others += skipped
        if not images:
            empty.append(name)
    if empty:
        refuse_empty(folder, len(classes), empty, others)
    report_skipped(folder, others)
    return items


def refuse_empty(folder: str, classes: int, empty: list[str], others: Iterable[str]) -> None:
    """Raise the UserError about class folders without images; `others`: the paths of the files that are no images."""
    advice = why_not_read(map(ending, others))
    raise UserError(
        f"{folder}: expected images in {classes:,} class folders, got none in {len(empty):,}, first: "
        f"{', '.join(empty[:3])}.{' ' + advice if advice else ''}"
    )


def report_skipped(folder: str, others: list[str]) -> None:
    """Print a note on files that are no images, and how to read those that are some of another kind."""
    if others:
        first = ", ".join(os.path.relpath(path, folder) for path in others[:3])
        advice = why_not_read(map(ending, others))
        notify(f"Note: skipped {len(others):,} files in {folder} that are no images: {first} {advice}".rstrip())


def ending(path: str) -> str:
    """Return the ending of a file's name, such as ".jpg"."""
    return os.path.splitext(path)[1]
