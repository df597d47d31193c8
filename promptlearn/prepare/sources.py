"""What is known about each dataset: its folder, sizes and files (datasets/sources.json)."""

from dataclasses import dataclass, field
from pathlib import Path

from basics import read_json


@dataclass(frozen=True)
class File:
    """A file to get: one that belongs in the dataset's folder, or an archive of what belongs there.

    Attributes:
        name: its name in the dataset's folder.
        urls: addresses (http or https), in the order in which they are tried.
        drive: id of the file on Google Drive, or "".
        by_hand: where to get it by hand if it cannot be downloaded, or "".
        bytes: its size, None if not published.
        sha256, md5: its hash (hex), "" if not published. MD5 only if there is no SHA-256.
        gives: for an archive, {path in the dataset's folder: path in the archive}; otherwise empty.
        inner: pattern of nested archives; the content of ``a/b.tar`` counts as ``a/b/...``.
        devkit: for ImageNet's validation images, the archive that gives the class of each.
        same_as: path in the DATA folder of an equivalent file, or "".
        unless: a file in the dataset's folder that makes this one unnecessary, or "".
    """

    name: str
    urls: tuple[str, ...] = ()
    drive: str = ""
    by_hand: str = ""
    bytes: int | None = None
    sha256: str = ""
    md5: str = ""
    gives: dict[str, str] = field(default_factory=dict)
    inner: str = ""
    devkit: "File | None" = None
    same_as: str = ""
    unless: str = ""

    def results(self) -> list[str]:
        """List the paths in the dataset's folder that come from this file."""
        return list(self.gives or [self.name])

    def missing(self, folder: Path) -> list[Path]:
        """List the results that are needed and missing."""
        if self.unless and (folder / self.unless).is_file():
            return []
        return [folder / path for path in self.results() if not is_there(folder / path)]


@dataclass(frozen=True)
class Source:
    """What is known about a dataset.

    Attributes:
        name: its registered name.
        folder: its folder in the DATA folder.
        classes: number of classes.
        images: published number of images in train, val and test, where there is one.
        files: the files it consists of.
    """

    name: str
    folder: str
    classes: int
    images: dict[str, int]
    files: tuple[File, ...]

    def missing(self, root: Path) -> list[Path]:
        """List files and folders that are missing from the DATA folder."""
        return [path for file in self.files for path in file.missing(root / self.folder)]

    def needed(self) -> list[File]:
        """List the files, except those that only replace another one."""
        return [file for file in self.files if not file.unless]


def is_there(path: Path) -> bool:
    """Return whether `path` is a file or a non-empty folder."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def read_sources(path: Path) -> dict[str, Source]:
    """Read the datasets of a sources.json, by registered name.

    Raises:
        UserError: it is missing or not JSON.
    """
    sources = {}
    for name, entry in read_json(path)["datasets"].items():
        files = tuple(_file(each) for each in entry["files"])
        sources[name] = Source(name, entry["folder"], entry["classes"], entry["images"], files)
    return sources


def _file(entry: dict) -> File:
    entry = {**entry, "urls": tuple(entry.get("urls", ()))}
    if "devkit" in entry:
        entry["devkit"] = _file(entry["devkit"])
    return File(**entry)
