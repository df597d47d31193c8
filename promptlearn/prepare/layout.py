"""A data set's folder: every file fetched, checked, unpacked and put in place. Stopped anywhere, it goes on."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from basics import UserError, mkdir_if_missing, read_json, write_atomic, write_json
from promptlearn.prepare.download import OtherFile, check_file, fetch
from promptlearn.prepare.imagenet import by_class
from promptlearn.prepare.sources import File, Source, is_there
from promptlearn.prepare.unpack import unpack

UNPACKING = ".unpacking"  # folder in which an archive grows before its parts get their names
NOTE = ".prepared.json"  # written last: all is there and was verified
LOCK = ".preparing"


def lay_out(source: Source, root: Path, say: Callable[[str], None]) -> None:
    """Get what is missing in ``root/source.folder``; what is there is left alone.

    Every file is tried, also after one has failed. Archives stay where they are.

    Args:
        root: the DATA folder; made if it is not there.
        say: told what is done.

    Raises:
        UserError: something could not be got; says all that is missing, and where to put it.
    """
    folder = root / source.folder
    if not source.missing(root) and not any((folder / name).exists() for name in (UNPACKING, LOCK)):
        return  # nothing is written, perhaps nothing may be
    mkdir_if_missing(folder)
    with _locked(folder):
        shutil.rmtree(folder / UNPACKING, ignore_errors=True)  # of a run that was killed
        failures = []
        for file in source.files:
            if file.lacking(folder):
                problems = _get_all(file, folder, root, say)
                if not problems and file.gives:
                    problems = _tried(_unpack, file, folder, say)
                failures += problems
    if failures:
        raise UserError("\n  ".join([f"{source.name} is not complete. See to this, and call again:", *failures]))


def is_prepared(source: Source, root: Path) -> bool:
    """Whether :func:`note_prepared` has been called for this very source, and nothing of it has gone since."""
    path = root / source.folder / NOTE
    return path.is_file() and read_json(path) == _facts(source) and not source.missing(root)


def note_prepared(source: Source, root: Path) -> None:
    """Leave a note in the folder that it is laid out and verified: the next call has nothing to do."""
    write_json(_facts(source), root / source.folder / NOTE)


def delete_archives(source: Source, root: Path) -> None:
    """Delete the archives of a data set that is laid out."""
    for file in source.files:
        if file.gives:
            for archive in filter(None, (file, file.devkit)):
                (root / source.folder / archive.name).unlink(missing_ok=True)


def _get(file: File, folder: Path, root: Path, say: Callable[[str], None]) -> None:
    """See to it that the file is in the folder: found and checked there, copied from another data set, or fetched."""
    path = folder / file.name
    if path.is_file():
        try:
            check_file(path, file)
        except OtherFile as error:
            raise UserError(f"{error}. It is not the published file: delete it") from error
    elif file.same_as and (root / file.same_as).is_file():
        write_atomic(path, (root / file.same_as).read_bytes())
    elif file.by_hand:
        size = f"{file.bytes:,} bytes, " if file.bytes else ""
        digest = f"sha256 {file.sha256}" if file.sha256 else f"md5 {file.md5}"
        needed = f", needed only without {file.unless}" if file.unless else ""
        raise UserError(f"put {file.name} into {folder}: {size}{digest}{needed}; from {file.by_hand}")
    else:
        say(f"fetching {path}")
        try:
            fetch(file, path)
        except UserError as error:
            raise UserError(f"{error}. Or put {file.name} into {folder} yourself") from error


def _get_all(file: File, folder: Path, root: Path, say: Callable[[str], None]) -> list[str]:
    """Get a file and what belongs to it. Returns what went wrong."""
    return [each for part in (file, file.devkit) if part for each in _tried(_get, part, folder, root, say)]


def _tried(step: Callable, *arguments) -> list[str]:
    try:
        step(*arguments)
    except UserError as error:
        return [str(error)]
    return []


def _unpack(file: File, folder: Path, say: Callable[[str], None]) -> None:
    """Unpack an archive beside its places, then move its parts there one by one."""
    say(f"unpacking {folder / file.name}")
    unpacked = folder / UNPACKING
    try:
        rename = by_class(folder / file.devkit.name) if file.devkit else None
        unpack(folder / file.name, file.gives, unpacked, file.inner, rename)
        os.sync()  # the names below promise that all is on the disk
        for path in file.gives:
            if not is_there(folder / path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(unpacked / path, folder / path)
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error}") from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _facts(source: Source) -> dict:
    return json.loads(json.dumps(asdict(source)))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second `prepare` out of the folder; the system frees the lock with its process, however that ends."""
    path = folder / LOCK
    try:
        lock = open(path, "w")
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or not os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                raise BlockingIOError  # the one who had it has just deleted it: another may hold its successor
        except BlockingIOError as error:
            raise UserError(f"another process is preparing {folder}; wait for it to end") from error
        except OSError as error:
            print(f"Note: no locks on the file system of {folder} ({error.strerror}): prepare nothing else in it")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
