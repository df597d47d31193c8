"""Files: written as a whole or not at all, read with clear messages."""

import hashlib
import json
import os
import re
import time
import uuid
from contextlib import suppress
from pathlib import Path

from basics.errors import MissingFile, UserError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # names of the files that write_atomic writes first


def write_atomic(path, data):
    """Write `data` (bytes) to `path` so that at any moment the file holds the old or the new content as a whole.

    The bytes go to a new file beside the target, which is synced and then renamed over it. Missing folders are made.

    Raises:
        UserError: the folder cannot be made or written (permission, disk full, ...); an old file stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(f'cannot write "{path}": {error.strerror or error}') from error


def sweep_litter(folder, older_than=0.0):
    """Delete what killed writers (see `write_atomic`) left in `folder` and below.

    Args:
        older_than: seconds; younger files may belong to somebody who is writing. 0 is for folders where nobody else is.
    """
    for path in Path(folder).rglob(".*.tmp"):
        if TEMPORARY.fullmatch(path.name):
            with suppress(OSError):  # somebody else's, or just renamed: not for us to tidy up
                if time.time() - path.stat().st_mtime >= older_than:
                    path.unlink()


def _sync_folder(folder):
    # Without this a power cut could undo the renaming.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(obj, fpath):
    """Write `obj` as JSON (indent 4), atomically."""
    write_atomic(fpath, (json.dumps(obj, indent=4) + "\n").encode())


def read_json(fpath):
    """Read a JSON file.

    Raises:
        MissingFile: no such file.
        UserError: not valid JSON.
    """
    try:
        return json.loads(Path(fpath).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFile(f'no file at "{fpath}"') from error
    except OSError as error:
        raise UserError(f'cannot read "{fpath}": {error.strerror}') from error
    except (ValueError, RecursionError) as error:  # the latter from brackets in thousands
        raise UserError(f'"{fpath}" is not valid JSON: {error}') from error


def mkdir_if_missing(dirname):
    """Make the folder and its parents, unless they exist.

    Raises:
        UserError: it cannot be made.
    """
    try:
        Path(dirname).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make the folder "{dirname}": {error.strerror}') from error


def sha256(path):
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir(*parts):
    """The folder (`pathlib.Path`, not made) where things made once are kept for all runs.

    `$DASSL_CACHE`, or `$XDG_CACHE_HOME/dassl`, or `~/.cache/dassl`; `parts` are joined to it.
    """
    if os.environ.get("DASSL_CACHE"):
        root = Path(os.environ["DASSL_CACHE"]).expanduser()
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dassl"
    return root.joinpath(*parts)
