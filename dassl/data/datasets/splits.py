"""Splits of a dataset: reading, saving and making them, and keeping the base or the new half of the classes."""

import math
import os
import random
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from basics import UserError, log, notify, read_json, write_json
from dassl.data.datasets.base_dataset import Datum, check_images, group_by_label
from dassl.data.datasets.tables import PATH, part_of, plain

SUBSAMPLES = ("all", "base", "new")
# Common names of the fields of a split's entries; those of the path are a table's.
LABEL_NUMBER = ("label", "labelid", "classid", "categoryid", "target", "y")
CLASS_NAME = ("classname", "labelname", "categoryname", "class", "category", "name")


def read_split(filepath: str, path_prefix: str) -> tuple[list[Datum], list[Datum], list[Datum]]:
    """Read a split file of the CoOp family, or one like it.

    The file is a JSON object with the keys train, val and test, each a list of [path, label, class name]. Also read,
    with a note: dicts with these three; labels that start at 1; no val; and labels that each list counts differently,
    which are then numbered by their names.

    Args:
        filepath: the split file.
        path_prefix: folder that the file's paths are relative to.

    Returns:
        The train, val and test images.

    Raises:
        UserError: the file is not such a split, or images in it are missing.
    """
    log(f"Reading split from {filepath}")
    split = read_json(filepath)
    try:
        lists = {part_of(key) or key: entries for key, entries in split.items()}
        if "val" not in lists:
            notify(f"Note: {filepath} has no val; there are no validation images")
            lists["val"] = []
        names: dict[str, str] = {}  # so that images of one class share its name
        parts = []
        for part in ("train", "val", "test"):
            entries = lists[part]
            for place, entry in enumerate(entries):  # in place, so that each entry is freed when it has been read
                entries[place] = _datum(names, path_prefix, *_fields(entry))
            parts.append(entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{filepath}: expected a split file, an object with train, val and test, each a list of [path, label, "
            f"class name], got {type(error).__name__}: {error}. Download it again."
        ) from error
    train, val, test = _count_from_zero(filepath, parts)
    check_images([*train, *val, *test], filepath)
    return train, val, test


def _fields(entry: Any) -> Any:
    """Return path, label and class name of an entry."""
    if not isinstance(entry, dict):
        return entry
    fields = {plain(key): value for key, value in entry.items()}

    def field(names: Sequence[str]) -> Any:
        return fields[next((name for name in names if name in fields), names[0])]

    return field(PATH), field(LABEL_NUMBER), field(CLASS_NAME)


def _count_from_zero(filepath: str, parts: list[list[Datum]]) -> list[list[Datum]]:
    """Return the lists with labels from 0; if they give a label different names, with one label for each name."""
    names: list[dict[int, str]] = [{item.label: item.classname for item in part} for part in parts]
    merged = {label: name for found in names for label, name in found.items()}
    if any(merged[label] != name for found in names for label, name in found.items()):
        in_order = dict.fromkeys(found[label] for found in names for label in sorted(found))
        number = {name: label for label, name in enumerate(in_order)}
        notify(f"Note: {filepath} numbers the classes of its lists differently; numbering them by their names")
        return [[Datum(i.impath, number[i.classname], i.domain, i.classname) for i in part] for part in parts]
    if merged and min(merged) == 1:
        notify(f"Note: {filepath} counts labels from 1; counting from 0")
        return [[Datum(i.impath, i.label - 1, i.domain, i.classname) for i in part] for part in parts]
    return parts


def _datum(names: dict[str, str], folder: str, path: Any, label: Any, classname: Any) -> Datum:
    """Return the image of one entry. Nothing is converted, so that a label of 0.9 does not become class 0.

    Args:
        names: the class names so far, by themselves.
    """
    label = int(label) if isinstance(label, str) and label.isdecimal() else label
    for name, value, right in (
        ("path", path, isinstance(path, str) and path and "\0" not in path),
        ("label", label, type(label) is int),
        ("class name", classname, isinstance(classname, str) and classname.strip()),
    ):
        if not right:
            raise ValueError(f"{value!r} is not a {name}")
    (path + classname).encode()  # raises ValueError for half a character, which JSON can hold
    return Datum(os.path.join(folder, path), label, classname=names.setdefault(classname, classname))


def save_split(train: list[Datum], val: list[Datum], test: list[Datum], filepath: str, path_prefix: str) -> None:
    """Write a split file for :func:`read_split`, with paths relative to ``path_prefix``.

    Raises:
        UserError: the file cannot be written.
    """
    split = {
        part: relative_entries(items, path_prefix) for part, items in (("train", train), ("val", val), ("test", test))
    }
    write_json(split, filepath)
    log(f"Saved split to {filepath}")


def relative_entries(items: Iterable[Datum], folder: str) -> list[list]:
    """Return [path relative to ``folder`` (with forward slashes), label, class name] of each image."""
    relative = relative_to(folder)
    return [[relative(item.impath), item.label, item.classname] for item in items]


def relative_to(folder: str) -> Callable[[str], str]:
    """Return a function that makes a path relative to a folder, with forward slashes; it looks up each folder once."""

    @cache
    def start(above: str) -> str:
        found = os.path.relpath(above, folder).replace(os.sep, "/")
        return "" if found == "." else f"{found}/"

    def relative(path: str) -> str:
        above, name = os.path.split(path)
        if not above or name in ("", os.curdir, os.pardir):
            return os.path.relpath(path, folder).replace(os.sep, "/")
        return start(above) + name

    return relative


def split_trainval(trainval: list[Datum], p_val: float = 0.2, rng=random) -> tuple[list[Datum], list[Datum]]:
    """Set aside a part of every class for validation, exactly as the CoOp family does.

    Args:
        trainval: the images to divide.
        p_val: share of each class (rounded) for validation.
        rng: a ``random.Random``, or the module ``random`` for Python's global stream.

    Returns:
        The train and val images, by class in the order of each class's first image.

    Raises:
        UserError: a class is too small to give a validation image.
    """
    log(f"Splitting trainval into {1 - p_val:.0%} train and {p_val:.0%} val")
    train, val = [], []
    for items in group_by_label(trainval).values():
        num_val = round(len(items) * p_val)
        if num_val == 0:
            raise UserError(
                f"class {items[0].classname!r}: expected enough images for {p_val:.0%} val, got {len(items)}. "
                "Add images, or provide a split file."
            )
        rng.shuffle(items)
        val += items[:num_val]
        train += items[num_val:]
    return train, val


def split_by_class(
    items: list[Datum], p_train: float = 0.5, p_val: float = 0.2, rng=random, refuse_small: bool = True
) -> tuple[list[Datum], list[Datum], list[Datum]]:
    """Divide the images of every class into train, val and test, exactly as the CoOp family does.

    Args:
        items: the images to divide.
        p_train, p_val: shares of each class (rounded) for train and val; the rest is test.
        rng: a ``random.Random``, or the module ``random`` for Python's global stream.
        refuse_small: refuse classes that are too small for this. Otherwise, at least half of such a class are train,
            the rest is test, and one image is train.

    Returns:
        The train, val and test images, by class in the order of each class's first image.

    Raises:
        UserError: a class is too small to give an image to each part, and `refuse_small`.
    """
    parts = f"{p_train:.0%} train, {p_val:.0%} val and {1 - p_train - p_val:.0%} test"
    log(f"Splitting into {parts}")
    train, val, test, small = [], [], [], []
    for members in group_by_label(items).values():
        rng.shuffle(members)
        num_train, num_val = round(len(members) * p_train), round(len(members) * p_val)
        if min(num_train, num_val, len(members) - num_train - num_val) < 1:
            small.append(f"{members[0].classname} ({len(members)})")
            if refuse_small:
                raise UserError(
                    f"class {members[0].classname!r}: expected enough images for {parts}, got {len(members)}. "
                    "Add images, or divide them yourself."
                )
            num_train, num_val = math.ceil(len(members) / 2), 0
        train += members[:num_train]
        val += members[num_train : num_train + num_val]
        test += members[num_train + num_val :]
    if small:
        notify(
            f"Note: {len(small)} classes have too few images for that: at least half are train, the rest is test, "
            f"first: {', '.join(small[:3])}"
        )
    return train, val, test


def subsample_classes(*sources: list[Datum], subsample: str = "all"):
    """Keep all classes, the base classes (first half, rounded up) or the new classes (the rest), labeled from 0.

    The classes are those of all sources, in the order of their labels.

    Args:
        sources: lists of images, for example train, val and test.
        subsample: "all", "base" or "new".

    Returns:
        One list per source, in the given order ("all": the sources themselves).

    Raises:
        UserError: ``subsample`` is something else.
    """
    if subsample not in SUBSAMPLES:
        raise UserError(f"DATASET.SUBSAMPLE_CLASSES: expected one of {', '.join(SUBSAMPLES)}, got {subsample!r}.")
    if subsample == "all":
        return sources

    log(f"SUBSAMPLE {subsample.upper()} CLASSES!")
    labels = sorted({item.label for source in sources for item in source})
    half = math.ceil(len(labels) / 2)
    selected = labels[:half] if subsample == "base" else labels[half:]
    relabel = {label: new for new, label in enumerate(selected)}
    return [
        [Datum(i.impath, relabel[i.label], i.domain, i.classname) for i in source if i.label in relabel]
        for source in sources
    ]
