"""Common layouts of image folders: with or without parts (train, valid, ...), and classes at any depth."""

import os
from collections import defaultdict
from itertools import groupby
from typing import NamedTuple

from basics import UserError, notify
from dassl.data.datasets.base_dataset import list_folder, scan_folder
from dassl.data.datasets.folders import (
    CLUTTER,
    class_folders,
    ending,
    is_clutter,
    list_files,
    refuse_empty,
    report_skipped,
)
from dassl.data.datasets.tables import part_of
from dassl.utils.images import why_not_read


class Placed(NamedTuple):
    """Images of one folder: their paths, their part ("" where there are none), and the names of the folders."""

    paths: list[str]
    part: str
    folders: tuple[str, ...]


def read_layout(root: str, level: int = 1, skipped: str = "") -> dict[str, list[tuple[str, str]]]:
    """List the images of a folder of class folders, by part.

    If every folder in it, or every folder in its class folders, has the name of a part ("train", "Valid", "Test_Set":
    see `part_of`), these are the parts. All images below a class folder belong to that class.

    Args:
        root: the folder.
        level: how deep the class folders are below root, or below a part's folder: 1, 2, ...; -1: an image's class is
            the folder that it is in.
        skipped: name of a folder in root that is none of this.

    Returns:
        {"train": [(path of an image, name of its class folder), ...], "val": ..., "test": ...}, only parts that have
        images, sorted by class; everything is "train" if the folder has no parts.

    Raises:
        UserError: no class folders, a class folder without images, or a folder cannot be listed.
    """
    if level == 0 or level < -1:
        raise UserError(f"DATASET.CLASS_LEVEL: expected 1, 2, ..., or -1, got {level}.")
    tops = [name for name in class_folders(root) if name != skipped]
    images, others = [], []
    for top in tops:
        found, more = list_files(os.path.join(root, top))
        images += found
        others += more
    if not images:
        refuse_empty(root, len(tops), tops, others)
    placed = _place(root, images)
    del images
    loose = [each for each in placed if len(each.folders) < abs(level)]
    if len(loose) == len(placed):
        where = os.path.dirname(loose[0].paths[0])
        raise UserError(
            f"{where}: expected class folders, got {count(loose):,} images in none. Put the images of each class into "
            "a folder of their own, or correct DATASET.CLASS_LEVEL."
        )
    _check_empty(root, tops, placed, others, skipped)
    report_skipped(root, others)
    if loose:
        notify(f"Note: ignoring {count(loose):,} images that are in no class folder, first: {loose[0].paths[0]}")
    placed = [each for each in placed if len(each.folders) >= abs(level)]
    if level == 1 and all(len(each.folders) > 1 for each in placed):
        _propose_level(placed)
    parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    index = level - 1 if level > 0 else -1
    for each in sorted(placed, key=lambda each: each.folders[index]):
        parts[each.part or "train"] += [(path, each.folders[index]) for path in each.paths]
    return dict(parts)


def count(placed: list[Placed]) -> int:
    return sum(len(each.paths) for each in placed)


def _place(root: str, images: list[str]) -> list[Placed]:
    # A folder whose files and folders alternate is here several times, so that the order stays that of the listing.
    grouped = [(folder, list(paths)) for folder, paths in groupby(images, os.path.dirname)]
    folders = [tuple(os.path.relpath(folder, root).split(os.sep)) for folder, _ in grouped]
    for depth in (0, 1):
        if all(len(names) > depth and part_of(names[depth]) for names in folders):
            return [
                Placed(paths, part_of(names[depth]), names[:depth] + names[depth + 1 :])
                for (_, paths), names in zip(grouped, folders, strict=True)
            ]
    tops = sorted({names[0] for names in folders})
    parts = [top for top in tops if part_of(top)]
    if len({part_of(top) for top in parts}) > 1:  # a single one may be a class, such as the vehicle
        others = [top for top in tops if top not in parts]
        notify(f"Note: {', '.join(parts)} count as classes in {root}, because {_some(others)} is no part of a dataset")
    return [Placed(paths, "", names) for (_, paths), names in zip(grouped, folders, strict=True)]


def _check_empty(root: str, tops: list[str], placed: list[Placed], others: list[str], skipped: str) -> None:
    """Refuse class folders whose images are missing or of another kind. Print a note on other folders without images.

    A class may have no images in val and test.
    """
    used = {os.path.dirname(each.paths[0]) for each in placed}
    while above := {os.path.dirname(folder) for folder in used if folder != root} - used:
        used |= above
    of_train = [os.path.join(root, top) for top in tops if part_of(top) == "train"]
    holders = of_train if all(each.part for each in placed) and of_train else [root]
    empty, ignored = [], [name for name in list_folder(root) if name in CLUTTER]
    for folder in {root, *holders}:
        for entry in scan_folder(folder):
            if not entry.is_dir() or is_clutter(entry.name) or entry.name == skipped or entry.path in used:
                continue
            below = [path for path in others if path.startswith(os.path.join(entry.path, ""))]
            if below and not why_not_read(map(ending, below)):
                ignored.append(os.path.relpath(entry.path, root))
            elif folder in holders:
                empty.append(os.path.relpath(entry.path, root))
    if empty:
        classes = {each.folders[0] for each in placed}
        refuse_empty(root, len(classes) + len(empty), sorted(empty), others)
    if ignored:
        notify(f"Note: ignoring {len(ignored)} folders in {root} that hold no images: {', '.join(sorted(ignored)[:5])}")


def _propose_level(placed: list[Placed]) -> None:
    """Print that the classes may be one level deeper."""
    tops, below = (sorted({each.folders[depth] for each in placed}) for depth in (0, 1))
    if len(below) > 1:
        notify(
            f"Note: all images are in folders below the class folders ({_some(tops)}), such as "
            f"{os.path.join(*placed[0].folders[:2])}. If these are the classes ({_some(below)}), set "
            "DATASET.CLASS_LEVEL 2."
        )


def _some(names: list[str]) -> str:
    return f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
