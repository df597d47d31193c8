"""Digests of a dataset's images: whether two runs, or a run before and after a stop, used the same ones."""

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import in_threads

CONTENTS_LIMIT = 2**30  # bytes; of a larger list of images, only names, labels, and sizes count


def data_digests(dataset: DatasetBase) -> dict[str, str]:
    """Return the SHA-256 of each list of images ("train", "val", "test"; those that are not empty).

    It covers paths (relative to the dataset's folder), labels, sizes, and, up to CONTENTS_LIMIT, the files' contents.
    """
    folder = getattr(dataset, "dataset_dir", "")
    lists = {"train": [*dataset.train_x, *(dataset.train_u or [])], "val": dataset.val, "test": dataset.test}
    return {name: _digest(items, folder) for name, items in lists.items() if items}


def _digest(items: Iterable[Datum], folder: str) -> str:
    total, whole, paths = 0, hashlib.sha256(), []

    @cache
    def start(above: str) -> str:
        path = Path(above)
        name = path.relative_to(folder) if folder and path.is_relative_to(folder) else path
        return "" if name == Path() else os.path.join(name.as_posix(), "")

    for item in items:
        above, name = os.path.split(os.path.normpath(item.impath))
        try:
            size = os.stat(item.impath).st_size
        except OSError:  # a dataset of the user's own may name what is not a file
            size = -1
        total += max(size, 0)
        if total <= CONTENTS_LIMIT:
            paths.append(item.impath)
        line = f"{start(above)}{name}\0{item.label}\0{size}\n"
        whole.update(line.encode(errors="surrogateescape"))
    if total <= CONTENTS_LIMIT:
        for content in in_threads(_content, paths):
            whole.update(content)
    return whole.hexdigest()


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""
