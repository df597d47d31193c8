"""Downloading one file: an interrupted download resumes, and only a checked file gets the final name."""

import hashlib
import os
import shutil
import time
from pathlib import Path

import requests
import urllib3

from basics import UserError, explain_os_error, read_json, show_progress
from promptlearn.prepare.sources import File

CHUNK = 1 << 20  # bytes read at once
ATTEMPTS = 5  # in a row without a new byte
PAUSE = 1.0  # seconds before the second attempt; doubled for each further one
TIMEOUT = (15, 60)  # seconds to connect, and to wait for the next bytes
# Limit for a file whose size is not published (the largest has 3 GB): a server that never stops is cut off.
LONGEST = 16 << 30


class OtherFile(UserError):
    """The file is not the published one."""


def fetch(file: File, path: Path) -> None:
    """Download `file` to `path` from the first of its sources that has it. Partial downloads are kept.

    Raises:
        UserError: no source has it, the disk is full, or the download is not the published file.
    """
    failures = []
    for source in (*file.urls, *([f"drive:{file.drive}"] if file.drive else [])):
        try:
            _fetch_from(source, file, path)
            return
        except UserError as error:
            failures.append(str(error))
    raise UserError(" ".join(failures))


def check_file(path: Path, file: File) -> None:
    """Compare a file with its published size and hash. Without a hash, it must at least be of the right kind.

    Raises:
        OtherFile: it is another file; the message says what was expected.
    """
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        raise OtherFile(f"{path}: expected {file.bytes:,} bytes, got {size:,}.")
    name, expected = ("sha256", file.sha256) if file.sha256 else ("md5", file.md5)
    if not expected:
        _check_kind(path, file)
    elif (found := _hash(path, name)) != expected:
        raise OtherFile(f"{path}: expected {name} {expected}, got {found}.")


def _check_kind(path: Path, file: File) -> None:
    with open(path, "rb") as opened:
        start = opened.read(256).lstrip().lower()
    if not start or start.startswith((b"<!doctype html", b"<html")):  # a login or a quota page
        raise OtherFile(f"{path}: expected {file.name}, got {'a web page' if start else 'an empty file'}.")
    if file.name.endswith(".json"):
        try:
            read_json(path)
        except UserError as error:
            raise OtherFile(f"{error}.") from None


def _fetch_from(source: str, file: File, path: Path) -> None:
    on_drive = source.startswith("drive:")
    part = path.with_name(f"{path.name}.{'drive' if on_drive else 'part'}")  # gdown keeps a .part of its own
    resumed = part.exists()
    try:
        if on_drive:
            _from_drive(file, part)
        else:
            _from_web(source, file, part)
        try:
            check_file(part, file)
        except OtherFile as error:
            _forget(part)
            if resumed:  # perhaps only the beginning, from an earlier attempt, was wrong
                return _fetch_from(source, file, path)
            raise UserError(f"{source}: expected the published file, got another one, now deleted. {error}") from None
        _tag_of(part).unlink(missing_ok=True)
        os.replace(part, path)
    except requests.RequestException as error:
        raise UserError(
            f"{source}: expected a download, got an error: {error}. Check the address and the connection."
        ) from None
    except OSError as error:
        raise explain_os_error(path, "a writable file", error) from None


def _from_drive(file: File, part: Path) -> None:
    import gdown  # slow to import, and most files come from elsewhere

    with show_progress(name=file.name, unit="B", unit_scale=True, delay=0, leave=True) as bar:

        def show(done: int, total: int | None) -> None:
            if max(done, total or 0) > (file.bytes or LONGEST):
                raise UserError(f"{file.name}: expected {file.bytes or LONGEST:,} bytes, got more from Google Drive.")
            _check_room(part, (total or done) - done)
            bar.total = total
            bar.update(done - bar.n)

        try:
            gdown.download(
                id=file.drive,
                output=str(part),
                quiet=True,
                resume=True,
                retries=ATTEMPTS,
                timeout=TIMEOUT,
                progress=show,
            )
        except gdown.exceptions.DownloadError as error:  # removed, or downloaded too often today
            page = f"https://drive.google.com/file/d/{file.drive}/view"
            reason = " ".join(str(error).split())
            raise UserError(
                f"{file.name}: expected a download from Google Drive, got a refusal: {reason}. Try {page} in a browser."
            ) from None


def _from_web(url: str, file: File, part: Path) -> None:
    """Download `url` to `part`, resuming after each interruption as long as new bytes arrive."""
    longest, attempt = 0, 1
    while True:
        try:
            if _receive(url, file, part):
                return
            problem = "the connection was lost"
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            problem = str(error)
        except requests.HTTPError as error:
            if error.response.status_code < 500:  # not found, and waiting will not help
                raise
            problem = str(error)
        if (held := _size(part)) > longest:
            longest, attempt = held, 1
        elif attempt == ATTEMPTS:
            raise UserError(
                f"{url}: expected the whole file, got {held:,} bytes, kept in {part.name}: {problem}. "
                "Run the same command to resume."
            )
        time.sleep(PAUSE * 2 ** (attempt - 1))
        attempt += 1


def _receive(url: str, file: File, part: Path) -> bool:
    """Request what is missing in `part` once. Returns whether it is now complete."""
    start = _size(part)
    if file.bytes is not None and start == file.bytes:
        return True
    tag = _tag_of(part)
    if start and not (tag.is_file() or file.sha256 or file.md5):
        start = 0  # nothing could show whether the rest belongs to this beginning
    headers = {"Accept-Encoding": "identity"}  # the bytes as stored, because they are counted
    if start:
        headers["Range"] = f"bytes={start}-"
        if tag.is_file():
            headers["If-Range"] = tag.read_text()
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            whole = response.headers.get("Content-Range", "") == f"bytes */{start}"
            if not whole:
                _forget(part)
            return whole
        response.raise_for_status()
        if not _continues(response, start):
            start = 0
        announced = response.headers.get("Content-Length")
        total = start + int(announced) if announced and announced.isdecimal() else None
        if None not in (total, file.bytes) and total != file.bytes:
            raise UserError(f"{url}: expected {file.bytes:,} bytes, got an offer of {total:,}.")
        _check_room(part, (total or file.bytes or 0) - start)
        if (etag := response.headers.get("ETag", "")).startswith('"'):  # a weak one does not promise equal bytes
            tag.write_text(etag)
        elif not start:
            tag.unlink(missing_ok=True)
        _write(response, part, start, total, file)
    return total is None or _size(part) == total


def _continues(response: requests.Response, start: int) -> bool:
    """Return whether the body begins at byte `start`; a server may ignore the range and send everything."""
    partial = response.status_code == requests.codes.partial_content
    if partial and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise UserError(f"{response.url}: expected the bytes from {start:,}, got another range.")
    return partial


def _write(response: requests.Response, part: Path, start: int, total: int | None, file: File) -> None:
    """Write the body to `part` from byte `start` on, and flush it to disk."""
    most = file.bytes or total or LONGEST
    name = file.name
    with (
        open(part, "r+b" if start else "wb") as out,
        show_progress(None, name, total, "B", delay=0, initial=start, unit_scale=True, leave=True) as bar,
    ):
        out.seek(start)
        try:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                if out.tell() + len(chunk) > most:
                    raise UserError(f"{response.url}: expected {most:,} bytes for {name}, got more.")
                out.write(chunk)
                bar.update(len(chunk))
        finally:
            out.flush()
            os.fsync(out.fileno())


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(f"{part.parent}: expected {needed:,} free bytes, got {free:,}. Free some disk space.")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tag_of(part: Path) -> Path:
    """Return the file with the server's ETag: the version of the file that `part` is the beginning of."""
    return part.with_name(f"{part.name}.etag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_of(part).unlink(missing_ok=True)


def _hash(path: Path, name: str) -> str:
    """Return the SHA-256 or MD5 of a file, in hex. MD5 detects broken downloads, not attacks."""
    with (
        open(path, "rb") as file,
        show_progress(None, f"checking {path.name}", _size(path), "B", unit_scale=True) as bar,
    ):
        digest = hashlib.new(name, usedforsecurity=False)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
