"""What is known of each data set: its folder, its sizes, and the files that it is made of (datasets/sources.json)."""

from dataclasses import dataclass, field
from pathlib import Path

from basics import read_json


@dataclass(frozen=True)
class File:
    """A file to get: one that belongs into the data set's folder, or an archive that gives what belongs there.

    Attributes:
        name: its name in the data set's folder.
        urls: addresses (http or https), in the order in which they are tried.
        drive: id of the file on Google Drive, or "".
        by_hand: where a person gets it, if no program can; or "".
        bytes: its size, or None where nobody publishes it.
        sha256, md5: its hash (hex), or "" where nobody publishes it. MD5 only where there is no SHA-256.
        gives: of an archive: {path in the data set's folder: path in the archive}. Empty: not an archive.
        inner: pattern of the archives in the archive; what is in ``a/b.tar`` counts as ``a/b/...``.
        devkit: of ImageNet's validation images: the archive that says which class each belongs to.
        same_as: path in the DATA folder of a file that will do as well, or "".
        unless: a file of the data set's folder with which this one is not needed, or "".
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
        """Paths that are in the data set's folder once this file has done its part."""
        return list(self.gives or [self.name])

    def lacking(self, folder: Path) -> list[Path]:
        """Which of its results are not there, though they are needed."""
        if self.unless and (folder / self.unless).is_file():
            return []
        return [folder / path for path in self.results() if not is_there(folder / path)]


@dataclass(frozen=True)
class Source:
    """What is known of a data set.

    Attributes:
        name: its registered name.
        folder: its folder in the DATA folder.
        classes: how many it has.
        images: published number of images, for those of train, val and test where there is one.
        files: what it is made of.
    """

    name: str
    folder: str
    classes: int
    images: dict[str, int]
    files: tuple[File, ...]

    def missing(self, root: Path) -> list[Path]:
        """Files and folders that should be in the DATA folder and are not."""
        return [path for file in self.files for path in file.lacking(root / self.folder)]

    def needed(self) -> list[File]:
        """The files without those that only stand in for another one."""
        return [file for file in self.files if not file.unless]


def is_there(path: Path) -> bool:
    """Whether there is a file, or a folder that is not empty."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def read_sources(path: Path) -> dict[str, Source]:
    """The data sets of a sources.json by their registered names.

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
