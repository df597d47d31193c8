"""Duplicate images, which make results doubtful: in training and test, within one list, or in two classes."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from dassl.data.datasets.base_dataset import Datum
from dassl.data.datasets.names import alike_names
from dassl.utils.tools import in_threads

MOST_COMPARED = 10**6  # images; of more, reading the start of each would take longer than a run
START = 4096  # bytes that are compared before whole files are read


def doubts(parts: dict[str, list[Datum]], classnames: Iterable[str], folder: str) -> list[str]:
    """Return one line for each kind of doubt: equal images in several lists or classes, and class names that are alike.

    Files are compared by content; only those of equal size are read, and most of them not to their end. More than
    MOST_COMPARED files are not compared.

    Args:
        parts: the images by the name of their list: "train", "val", "test". What a list shares with an earlier one by
            name (ImageNet validates on its test images) does not count.
        classnames: the names of the classes.
        folder: the lines name images relative to it.
    """
    part_of: dict[str, str] = {}
    for part, items in parts.items():
        for item in items:
            part_of.setdefault(item.impath, part)
    is_large = len(part_of) > MOST_COMPARED
    groups = [] if is_large else equal_files(part_of)
    repeats = {path for group in groups for path in group}
    classes = {i.impath: i.classname for items in parts.values() for i in items if i.impath in repeats}

    def line(pairs: list[tuple[str, str]], what: str) -> list[str]:
        examples = "; ".join(" = ".join(os.path.relpath(path, folder) for path in pair) for pair in pairs[:3])
        return [f"{len(pairs):,} {what}: {examples}{'; ...' if len(pairs) > 3 else ''}"] if pairs else []

    leaks, repeated, contrary = [], [], []
    for paths in groups:
        first = {part_of[path]: path for path in reversed(paths)}
        for path in paths:
            part = part_of[path]
            if part != "train" and "train" in first:
                leaks.append((path, first["train"]))
            if path != first[part]:
                repeated.append((path, first[part]))
            if classes[path] != classes[paths[0]]:
                contrary.append((path, paths[0]))
    return [
        *([f"more than {MOST_COMPARED:,} images are not compared with one another"] if is_large else []),
        *line(leaks, "images of val or test are in train, too, which inflates the results"),
        *line(repeated, "images repeat another one of their list"),
        *line(contrary, "images have a copy in another class"),
        *(f"class names that are alike: {', '.join(map(repr, names))}" for names in alike_names(classnames)),
    ]


def equal_files(paths: Iterable[str]) -> list[list[str]]:
    """Return the groups of files with equal content, in the order of their first file; empty files do not count."""
    groups = [list(paths)]
    for key in (_size, _start, _content):
        values = in_threads(key, [path for group in groups for path in group])
        alike = []
        for group in groups:
            found: dict[int | bytes, list[str]] = defaultdict(list)
            for path, value in zip(group, values, strict=False):  # the values of the other groups follow
                found[value].append(path)
            alike += [paths for value, paths in found.items() if value and len(paths) > 1]
        groups = alike
    return groups


def _size(path: str) -> int:
    with suppress(OSError):  # reported when the image is read
        return os.path.getsize(path)
    return 0


def _start(path: str) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(START)
    return b""


def _content(path: str) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
    return b""
