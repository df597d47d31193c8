"""Downloads, checks, unpacks and verifies datasets, in the folders that the loaders expect."""

from promptlearn.prepare.layout import delete_archives, is_prepared, lay_out, note_prepared
from promptlearn.prepare.sources import File, Source, read_sources
from promptlearn.prepare.verify import (
    Spread,
    image_sizes,
    images_per_class,
    splits,
    wrong_counts,
    wrong_files,
    wrong_images,
)

__all__ = [
    "File",
    "Source",
    "Spread",
    "delete_archives",
    "image_sizes",
    "images_per_class",
    "is_prepared",
    "lay_out",
    "note_prepared",
    "read_sources",
    "splits",
    "wrong_counts",
    "wrong_files",
    "wrong_images",
]
