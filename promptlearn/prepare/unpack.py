"""Unpacking archives from the network: nothing lands outside the folder, and nothing grows without bound.

Only the contents of regular files are extracted, never links, devices, owners, or modes: a link becomes a
copy of what it names in the archive. Refused as a whole: an absolute path or a ``..``, a device, and more files or
bytes than any dataset has. (tarfile's data filter is not used: it knows neither zip files nor sizes, and it does not
exist before Python 3.11.4.)
"""

import fnmatch
import gzip
import posixpath
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from basics import UserError, explain_os_error, show_progress

CHUNK = 1 << 20  # bytes read at once
MAX_FILES = 2_000_000  # the largest dataset, ImageNet, has 1.3 million
MAX_GROWTH = 20  # bytes out for a byte in: images are compressed already, lists of names shrink to a tenth
ALWAYS_ALLOWED = 64 << 20  # bytes that a small archive may grow to, whatever its growth
MAX_LINK = 4096  # bytes of a link's target in a zip file
ENCRYPTED = 1  # bit of a zip member's flags


@dataclass(frozen=True)
class Entry:
    """A file or folder in an archive: its path, the size that the archive states, and a function that opens it."""

    name: str
    size: int
    open: Callable[[], BinaryIO] | None  # None for a folder


class Budget:
    """Files and bytes that may still come out of an archive of `packed` bytes."""

    def __init__(self, packed: int):
        self.files = MAX_FILES
        self.bytes = max(ALWAYS_ALLOWED, MAX_GROWTH * packed)

    def take(self, size: int, files: int = 0) -> None:
        self.files -= files
        self.bytes -= size
        if self.files < 0 or self.bytes < 0:
            raise UserError("it has more files or bytes than any dataset")


def unpack(
    archive: Path,
    gives: dict[str, str],
    into: Path,
    inner: str = "",
    rename: Callable[[str], str] | None = None,
) -> None:
    """Unpack the wanted part of a tar, tar.gz or zip file into a new folder.

    Args:
        archive: the file; its content decides what kind it is.
        gives: {path below `into`: path in the archive ("" for all)}; everything else in the archive is left out.
        into: the folder, created here.
        inner: pattern of nested archives whose members are wanted; those of ``a/b.tar`` count as ``a/b/...``.
        rename: path in the archive -> path that `gives` refers to, for an archive whose files have other names.

    Raises:
        UserError: the archive is damaged, unsafe, or incomplete. Delete what was unpacked so far.
    """
    try:
        budget = Budget(archive.stat().st_size)
        with open(archive, "rb") as file:
            entries = _nested(file, inner) if inner else _entries(file)
            into.mkdir(parents=True)
            for entry in show_progress(entries, f"unpacking {archive.name}", unit=" files", leave=True):
                _extract(entry, _destination(rename(entry.name) if rename else entry.name, gives, into), budget)
    except UserError as error:
        raise UserError(f"{archive}: expected a safe archive, got one that is not: {error}. Delete it.") from error
    except Exception as error:  # for a damaged archive the readers raise almost anything
        if isinstance(error, OSError) and error.errno is not None:
            raise explain_os_error(archive, "an archive that can be unpacked", error) from error
        reason = error or type(error).__name__
        raise UserError(f"{archive}: expected an intact archive, got a damaged one ({reason}). Delete it.") from error
    missing = [inside or "any file" for path, inside in gives.items() if not (into / path).exists()]
    if missing:
        raise UserError(
            f"{archive}: expected an archive that holds {', '.join(missing)}, got one that does not. "
            "Delete it if it is another file of the same name."
        )


def _extract(entry: Entry, target: Path | None, budget: Budget) -> None:
    """Write an entry to `target`, or skip it if that is None."""
    budget.take(0 if target else entry.size, files=1)  # what is skipped takes time, too
    if target is None:
        return
    if entry.open is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with entry.open() as content, open(target, "wb") as out:
        while chunk := content.read(CHUNK):
            budget.take(len(chunk))
            out.write(chunk)


def _destination(name: str, gives: dict[str, str], into: Path) -> Path | None:
    parts = PurePosixPath(name).parts
    for path, inside in gives.items():
        prefix = PurePosixPath(inside).parts
        if parts[: len(prefix)] == prefix:
            return into.joinpath(path, *parts[len(prefix) :])
    return None


def _nested(file: BinaryIO, pattern: str) -> Iterator[Entry]:
    """Yield the members of all nested archives whose names match, each below its archive's name without the ending."""
    for entry in _entries(file):
        if entry.open and fnmatch.fnmatchcase(entry.name, pattern):
            folder = entry.name.removesuffix(".gz").removesuffix(".tar")
            with entry.open() as content:
                for member in _entries(content):
                    yield replace(member, name=f"{folder}/{member.name}")


def _entries(file: BinaryIO) -> Iterator[Entry]:
    start = file.read(4)
    file.seek(0)
    entries = _zip_entries(file) if start == b"PK\x03\x04" else _tar_entries(file, start.startswith(b"\x1f\x8b"))
    for entry in entries:
        path = PurePosixPath(entry.name)
        drive = entry.name[1:2] == ":"
        if path.is_absolute() or ".." in path.parts or drive or "\\" in entry.name or "\0" in entry.name:
            raise UserError(f"{entry.name!r} leads out of its folder")
        if entry.size < 0:
            raise UserError(f"{entry.name!r} has a size of {entry.size}")
        yield entry


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
        files: dict[str, tarfile.TarInfo] = {}
        for member in archive:
            content = member
            if member.issym() or member.islnk():  # the one counts from its own folder, the other from the root
                folder = posixpath.dirname(member.name) if member.issym() else ""
                content = _follow(member.name, posixpath.join(folder, member.linkname), files)
            elif not (member.isreg() or member.isdir()):
                raise UserError(f"{member.name!r} is a device or pipe")
            if not member.isdir():
                files[posixpath.normpath(member.name)] = content
            yield Entry(member.name, content.size, None if member.isdir() else partial(archive.extractfile, content))
        # The end of the stream holds its checksum. A little padding is usual.
        for _ in range(ALWAYS_ALLOWED // CHUNK):
            if not plain.read(CHUNK):
                return
        raise UserError("it continues after its end")


def _zip_entries(file: BinaryIO) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        files: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            if member.flag_bits & ENCRYPTED:
                raise UserError(f"{member.filename!r} is encrypted")
            content, kind = member, stat.S_IFMT(member.external_attr >> 16)
            if kind == stat.S_IFLNK:
                with archive.open(member) as link:
                    target = link.read(MAX_LINK).decode(errors="surrogateescape")
                content = _follow(member.filename, posixpath.join(posixpath.dirname(member.filename), target), files)
            elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # 0: made by another system than Unix
                raise UserError(f"{member.filename!r} is a device or pipe")
            if not member.is_dir():
                files[posixpath.normpath(member.filename)] = content
            yield Entry(member.filename, content.file_size, None if member.is_dir() else partial(archive.open, content))


def _follow(name: str, target: str, files: dict[str, Any]) -> Any:
    """Find the member with the content of the link `name`. `files`: path -> such a member, of all before it."""
    content = files.get(posixpath.normpath(target))
    if content is None:
        raise UserError(f"{name!r} is a link to {target!r:.99}, which is no file before it")
    return content
