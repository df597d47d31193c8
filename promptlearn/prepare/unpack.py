"""Unpacking archives from the network: nothing lands outside the folder, and nothing grows without end.

Refused as a whole: an absolute path, a ``..``, a link that leads out of the archive or to something that it does not
hold, a device, more files or bytes than any data set has. No link is ever made: it becomes a copy of what it names.
"""

import fnmatch
import gzip
import posixpath
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm import tqdm

from basics import UserError

CHUNK = 1 << 20  # bytes read at once
MAX_FILES = 2_000_000  # the largest data set, ImageNet, has 1.3 million
MAX_GROWTH = 20  # bytes out for a byte in: pictures are compressed already, lists of names shrink to a tenth
ALWAYS_ALLOWED = 64 << 20  # bytes that a small archive may grow to, whatever its growth
MAX_LINK = 4096  # bytes of a link's target in a zip file
ENCRYPTED = 1  # bit of a zip member's flags


@dataclass(frozen=True)
class Entry:
    """A member of an archive.

    Attributes:
        name: its path in the archive.
        kind: "file", "folder", "link", or what else it is.
        size: bytes that the archive says it has.
        open: opens its content; what is read is never more than `size`.
        link: path in the archive that a link leads to, made absolute.
    """

    name: str
    kind: str
    size: int = 0
    open: Callable[[], BinaryIO] | None = None
    link: str = ""


class Budget:
    """Files and bytes that may still come out of an archive of `packed` bytes."""

    def __init__(self, packed: int):
        self.files = MAX_FILES
        self.bytes = max(ALWAYS_ALLOWED, MAX_GROWTH * packed)

    def take(self, size: int) -> None:
        self.files -= 1
        self.bytes -= size
        if self.files < 0 or self.bytes < 0:
            raise UserError("it holds more than any data set: files or bytes without end")


def unpack(archive: Path, gives: dict[str, str], into: Path, inner: str = "", arrange=None) -> None:
    """Unpack what is wanted of a tar, tar.gz or zip file into an empty folder.

    Args:
        archive: the file; its content tells its kind.
        gives: {path below `into`: path in the archive ("" for all)}; all else in the archive is left out.
        into: the folder, made here.
        inner: pattern of the archives in it whose members are meant; those of ``a/b.tar`` count as ``a/b/...``.
        arrange: changes the stream of entries on its way, for an archive that has its files under other names.

    Raises:
        UserError: the archive is damaged, attacks, or lacks what is wanted. What was unpacked so far is to be deleted.
    """
    try:
        budget = Budget(archive.stat().st_size)
        with open(archive, "rb") as file:
            entries = _checked(_entries(file), budget)
            if inner:
                entries = _expanded(entries, inner, budget)
            if arrange:
                entries = arrange(entries)
            into.mkdir(parents=True)
            for entry in tqdm(entries, desc=f"unpacking {archive.name}", unit=" files", disable=None):
                _place(entry, gives, into, budget)
    except UserError as error:
        raise UserError(f"{archive} is refused: {error}") from error
    except Exception as error:  # for a damaged archive the readers raise almost anything
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{archive} cannot be unpacked: {error}") from error
        reason = error or type(error).__name__
        raise UserError(f"{archive} is damaged ({reason}). Delete it and get it again") from error
    lacking = [inside or "all" for path, inside in gives.items() if not (into / path).exists()]
    if lacking:
        raise UserError(f"{archive} does not hold {', '.join(lacking)}; is it another file of the same name?")


def _place(entry: Entry, gives: dict[str, str], into: Path, budget: Budget) -> None:
    """Write an entry to where it belongs, if it is wanted."""
    target = _destination(entry.name, gives, into)
    if target is None:
        return
    if entry.kind == "folder":
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.kind == "link":
        original = _destination(entry.link, gives, into)
        if original is None or not original.is_file():
            raise UserError(f"{entry.name!r} is a link to {entry.link!r}, which is no file unpacked before it")
        budget.take(original.stat().st_size)
        shutil.copyfile(original, target)
        return
    with entry.open() as content, open(target, "wb") as out:
        shutil.copyfileobj(content, out, CHUNK)


def _destination(name: str, gives: dict[str, str], into: Path) -> Path | None:
    parts = PurePosixPath(name).parts
    for path, inside in gives.items():
        prefix = PurePosixPath(inside).parts
        if parts[: len(prefix)] == prefix:
            return into.joinpath(path, *parts[len(prefix) :])
    return None


def _checked(entries: Iterator[Entry], budget: Budget) -> Iterator[Entry]:
    """The entries as they are, once nothing speaks against them."""
    for entry in entries:
        if entry.kind not in ("file", "folder", "link"):
            raise UserError(f"{entry.name!r} is a {entry.kind}, expected files and folders only")
        if entry.size < 0:
            raise UserError(f"{entry.name!r} has a size of {entry.size}")
        _check_path(entry.name)
        if entry.kind == "link":
            _check_path(entry.link, f"link {entry.name!r} to ")
        budget.take(entry.size)
        yield entry


def _check_path(name: str, what: str = "") -> None:
    path = PurePosixPath(name)
    drive = len(name) > 1 and name[1] == ":"
    if path.is_absolute() or ".." in path.parts or drive or "\\" in name or "\0" in name:
        raise UserError(f"{what}{name!r} leads out of its folder")


def _expanded(entries: Iterator[Entry], pattern: str, budget: Budget) -> Iterator[Entry]:
    """The members of all entries that `pattern` names, each below the archive's own name without its ending."""
    for entry in entries:
        if entry.kind != "file" or not fnmatch.fnmatchcase(entry.name, pattern):
            continue
        folder = entry.name.removesuffix(".gz").removesuffix(".tar")
        with entry.open() as file:
            for member in _checked(_entries(file), budget):
                link = f"{folder}/{member.link}" if member.link else ""
                yield replace(member, name=f"{folder}/{member.name}", link=link)


def _entries(file: BinaryIO) -> Iterator[Entry]:
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        return _zip_entries(file)
    return _tar_entries(file, compressed=start.startswith(b"\x1f\x8b"))


class _InPieces:
    """A file that is read in pieces of at most CHUNK bytes; a header that claims gigabytes would fill the memory."""

    def __init__(self, file: BinaryIO):
        self.file, self.seek, self.tell, self.seekable = file, file.seek, file.tell, file.seekable

    def read(self, size: int) -> bytes:
        if not 0 <= size <= CHUNK:
            raise UserError("it has a header of impossible size")
        return self.file.read(size)


def _tar_entries(file: BinaryIO, compressed: bool) -> Iterator[Entry]:
    with ExitStack() as stack:
        plain = stack.enter_context(gzip.open(file)) if compressed else file
        archive = stack.enter_context(tarfile.open(fileobj=_InPieces(plain), mode="r:"))
        for member in archive:
            content = partial(archive.extractfile, member)
            yield Entry(member.name, _tar_kind(member), member.size, content, _tar_link(member))
        # The end of the stream holds its check sum. A little padding is usual.
        for _ in range(ALWAYS_ALLOWED // CHUNK):
            if not plain.read(CHUNK):
                return
        raise UserError("it goes on after its end")


def _tar_kind(member: tarfile.TarInfo) -> str:
    kinds = {"file": member.isreg(), "folder": member.isdir(), "link": member.issym() or member.islnk()}
    return next((kind for kind, fits in kinds.items() if fits), "device or pipe")


def _tar_link(member: tarfile.TarInfo) -> str:
    """Path in the archive: a symbolic link counts from its own folder, a hard link from the archive's root."""
    if not (member.issym() or member.islnk()):
        return ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(member.name) * member.issym(), member.linkname))


def _zip_entries(file: BinaryIO) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.flag_bits & ENCRYPTED:
                raise UserError(f"{info.filename!r} is encrypted")
            kind, link = _zip_kind(info), ""
            if kind == "link":
                if info.file_size > MAX_LINK:
                    raise UserError(f"{info.filename!r} is a link with a target of {info.file_size:,} bytes")
                target = archive.read(info).decode(errors="surrogateescape")
                link = posixpath.normpath(posixpath.join(posixpath.dirname(info.filename), target))
            yield Entry(info.filename, kind, info.file_size, partial(archive.open, info), link)


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16  # of Unix; 0 where another system made the archive
    if stat.S_ISLNK(mode):
        return "link"
    if info.is_dir():
        return "folder"
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "device or pipe"
