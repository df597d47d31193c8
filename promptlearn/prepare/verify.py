"""Verifies a dataset (files, sizes, every image) and describes its content."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from basics import UserError, show_progress
from promptlearn.prepare.download import check_file
from promptlearn.prepare.sources import Source

if TYPE_CHECKING:
    from dassl.data.datasets import DatasetBase, Datum


def wrong_files(source: Source, root: Path) -> list[str]:
    """Return one line for each file or folder that is missing, and for each file that is not the published one.

    Archives are skipped: what came out of them is counted elsewhere.
    """
    folder = root / source.folder
    lines = [f"{path}: missing" for path in source.missing(root)]
    for file in source.files:
        if not file.gives and (folder / file.name).is_file():
            try:
                check_file(folder / file.name, file)
            except UserError as error:
                lines.append(str(error))
    return lines


def wrong_counts(source: Source, dataset: DatasetBase) -> list[str]:
    """Return one line for each size that differs from the published one."""
    found = {"classes": dataset.num_classes, **{part: len(items) for part, items in splits(dataset).items()}}
    expected = {"classes": source.classes, **source.images}
    return [
        f"{source.name}: expected {expected[part]:,} {part if part == 'classes' else f'{part} images'}, "
        f"got {found[part]:,}."
        for part in expected
        if found[part] != expected[part]
    ]


def wrong_images(dataset: DatasetBase) -> list[str]:
    """Return one line for each image that cannot be decoded."""
    return [reason for reason in _for_each_image(dataset, _why_unreadable, "decoding") if reason]


def doubtful(dataset: DatasetBase) -> list[str]:
    """Return one line for each kind of doubt about a dataset that is not wrong; see `dassl.data.datasets.doubts`."""
    from dassl.data.datasets import doubts  # imports torch

    parts = splits(dataset)
    if getattr(dataset, "test_only", False):  # the training images are the test images
        parts = {"test": parts["test"]}
    return doubts(parts, dataset.classnames, dataset.dataset_dir or ".")


def splits(dataset: DatasetBase) -> dict[str, list[Datum]]:
    return {"train": dataset.train_x, "val": dataset.val or [], "test": dataset.test or []}


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest of some numbers."""

    least: int
    middle: int
    most: int

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Spread:
        ordered = sorted(numbers)
        return cls(ordered[0], ordered[len(ordered) // 2], ordered[-1])


def images_per_class(dataset: DatasetBase) -> list[dict]:
    """Count the train, val, and test images of each class: (label, name, counts), in the order of the labels."""
    counts = {part: Counter(item.label for item in items) for part, items in splits(dataset).items()}
    return [
        {"label": label, "name": name, **{part: counts[part][label] for part in counts}}
        for label, name in dataset.lab2cname.items()
    ]


def image_sizes(dataset: DatasetBase) -> dict[str, Spread]:
    """Return the spread of width and height (pixels) and of the files' sizes (bytes).

    Raises:
        UserError: an image cannot be read.
    """
    widths, heights, sizes = zip(*_for_each_image(dataset, _size, "measuring"), strict=True)
    return {"width": Spread.of(widths), "height": Spread.of(heights), "bytes": Spread.of(sizes)}


def _for_each_image(dataset: DatasetBase, function: Callable, what: str) -> Iterator:
    """Call a function with the path of each image file once, in several threads."""
    from dassl.utils import in_threads  # imports torch

    paths = sorted({item.impath for items in splits(dataset).values() for item in items})
    yield from show_progress(in_threads(function, paths), what, len(paths), " images", leave=True)


def _why_unreadable(path: str) -> str:
    from dassl.utils import read_image

    try:
        read_image(path)
    except UserError as error:
        return str(error)
    return ""


def _size(path: str) -> tuple[int, int, int]:
    try:
        with Image.open(path) as image:  # reads the header only
            return *image.size, os.path.getsize(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: expected an image, got {error}. Replace the file.") from error
