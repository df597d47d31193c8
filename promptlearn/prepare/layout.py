"""Lays out a dataset's folder: downloads, checks and unpacks every file. Interrupted anywhere, it resumes."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from basics import UserError, explain_os_error, mkdir_if_missing, notify, read_json, write_atomic, write_json
from promptlearn.prepare.download import OtherFile, check_file, fetch
from promptlearn.prepare.imagenet import by_class
from promptlearn.prepare.sources import File, Source, is_there
from promptlearn.prepare.unpack import unpack

UNPACKING = ".unpacking"  # folder for an archive's content until it is complete
RECORD = ".prepared.json"  # written last, when everything is complete and verified
LOCK = ".preparing"


def lay_out(source: Source, root: Path, report: Callable[[str], None]) -> None:
    """Get what is missing in ``root/source.folder``; existing files are left alone.

    Every file is tried, even after one has failed. Archives are kept.

    Args:
        root: the DATA folder, created if missing.
        report: called with one line for each step.

    Raises:
        UserError: files could not be obtained; the message lists them, and where to put them.
    """
    folder = root / source.folder
    if not source.missing(root) and not any((folder / name).exists() for name in (UNPACKING, LOCK)):
        return  # without writing: the folder may be read-only
    mkdir_if_missing(folder)
    with _locked(folder):
        shutil.rmtree(folder / UNPACKING, ignore_errors=True)  # left by a run that was killed
        failures = []
        for file in source.files:
            if file.missing(folder):
                problems = _get_all(file, folder, root, report)
                if not problems and file.gives:
                    problems = _errors(_unpack, file, folder, report)
                failures += problems
    if failures:
        raise UserError("\n  ".join([f"{source.name} is incomplete. Fix this and run the command again:", *failures]))


def is_prepared(source: Source, root: Path) -> bool:
    """Return whether :func:`record_prepared` was called for this source, and nothing has been removed since."""
    path = root / source.folder / RECORD
    return path.is_file() and read_json(path) == _facts(source) and not source.missing(root)


def record_prepared(source: Source, root: Path) -> None:
    """Record in the folder that it is laid out and verified, so that the next call has nothing to do."""
    write_json(_facts(source), root / source.folder / RECORD)


def delete_archives(source: Source, root: Path) -> None:
    """Delete the archives of a dataset that is laid out."""
    for file in source.files:
        if file.gives:
            for archive in filter(None, (file, file.devkit)):
                (root / source.folder / archive.name).unlink(missing_ok=True)


def _get(file: File, folder: Path, root: Path, report: Callable[[str], None]) -> None:
    """Put the file into the folder: find and check it there, copy it from another dataset, or download it."""
    path = folder / file.name
    if path.is_file():
        try:
            check_file(path, file)
        except OtherFile as error:
            raise UserError(f"{error} It is not the published file. Delete it.") from error
    elif file.same_as and (root / file.same_as).is_file():
        write_atomic(path, (root / file.same_as).read_bytes())
    elif file.by_hand:
        size = f"{file.bytes:,} bytes, " if file.bytes else ""
        digest = f"sha256 {file.sha256}" if file.sha256 else f"md5 {file.md5}"
        needed = f", only needed without {file.unless}" if file.unless else ""
        raise UserError(f"{file.name}: put it into {folder} ({size}{digest}{needed}). Get it from {file.by_hand}")
    else:
        report(f"downloading {path}")
        try:
            fetch(file, path)
        except UserError as error:
            raise UserError(f"{error} Or put {file.name} into {folder} yourself.") from error


def _get_all(file: File, folder: Path, root: Path, report: Callable[[str], None]) -> list[str]:
    """Get a file and its development kit. Returns what went wrong."""
    return [each for part in (file, file.devkit) if part for each in _errors(_get, part, folder, root, report)]


def _errors(step: Callable, *arguments) -> list[str]:
    try:
        step(*arguments)
    except UserError as error:
        return [str(error)]
    return []


def _unpack(file: File, folder: Path, report: Callable[[str], None]) -> None:
    """Unpack an archive next to its destination, then move its parts there one by one."""
    report(f"unpacking {folder / file.name}")
    unpacked = folder / UNPACKING
    try:
        rename = by_class(folder / file.devkit.name) if file.devkit else None
        unpack(folder / file.name, file.gives, unpacked, file.inner, rename)
        os.sync()  # a part that has its final name must be complete on disk
        for path in file.gives:
            if not is_there(folder / path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(unpacked / path, folder / path)
    except OSError as error:
        raise explain_os_error(folder, "a writable folder", error) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _facts(source: Source) -> dict:
    return json.loads(json.dumps(asdict(source)))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second `prepare` out of the folder. The system releases the lock when the process ends."""
    path = folder / LOCK
    try:
        lock = open(path, "w")
    except OSError as error:
        raise explain_os_error(folder, "a writable folder", error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or not os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                raise BlockingIOError  # its last owner has just deleted it: another process may hold the new one
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: expected no other process in it, got one that prepares it. Wait for that to end."
            ) from error
        except OSError as error:
            notify(f"{folder}: its file system has no locks ({error.strerror}). Run only one command at a time in it.")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
