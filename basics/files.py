"""Write files completely or not at all, and read them with clear messages."""

import hashlib
import json
import os
import re
import time
import uuid
from contextlib import suppress
from pathlib import Path

from basics.errors import MissingFile, UserError, explain_os_error
from basics.locks import LOCK_FILE

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # names of the temporary files of write_atomic


def write_atomic(path, data):
    """Write `data` (bytes) to `path`, so that at any moment the file has either its old or its new content.

    The bytes go to a new file next to the target, which is synced and then renamed. Missing folders are created.

    Raises:
        UserError: the folder cannot be created or written (permission, disk full, ...); an old file stays unchanged.
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
        raise explain_os_error(path, "a writable file", error) from error


def sweep_litter(folder, older_than=0.0):
    """Delete the temporary files that killed processes (see `write_atomic`) left in `folder` and below.

    Subfolders with a lock file are left out: they are the folders of other runs, which may be writing.

    Args:
        older_than (float): seconds. Newer files may belong to a process that is writing; 0 is for folders without one.
    """
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not os.path.exists(os.path.join(parent, name, LOCK_FILE))]
        for path in (Path(parent, name) for name in names if TEMPORARY.fullmatch(name)):
            with suppress(OSError):  # another user's, or just renamed
                if time.time() - path.stat().st_mtime >= older_than:
                    path.unlink()


def _sync_folder(folder):
    # Without this, a power failure could undo the renaming.
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
        UserError: not valid JSON, or not a regular file.
    """
    try:
        if Path(fpath).exists() and not Path(fpath).is_file():  # reading a pipe would wait for its writer
            raise UserError(f"{fpath}: expected a regular file, got a folder, a pipe, or a device. Give a file.")
        return json.loads(Path(fpath).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFile(f"{fpath}: expected a file, got nothing. Check the path.") from error
    except OSError as error:
        raise explain_os_error(fpath, "a readable file", error) from error
    except (ValueError, RecursionError) as error:  # the latter from thousands of brackets
        raise UserError(f"{fpath}: expected valid JSON, got an error: {error}. Fix or restore the file.") from error


def mkdir_if_missing(dirname):
    """Create the folder and its parents, unless they exist.

    Raises:
        UserError: it cannot be created.
    """
    try:
        Path(dirname).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(dirname, "a folder that can be created", error) from error


def keep_outside(output, pictures, source):
    """Refuse an output folder inside a folder of the user's own pictures, which is never written to.

    Args:
        source (str): the key or flag of the output folder, for the message.

    Raises:
        UserError: it is inside.
    """
    if Path(pictures).is_dir() and Path(output).resolve().is_relative_to(Path(pictures).resolve()):
        raise UserError(
            f"{source}: expected a folder outside of the pictures in {pictures}, got {output}. Set another."
        )


def sha256(path):
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir(*parts):
    """Return the folder (`pathlib.Path`, not created) for files that all runs share.

    `$DASSL_CACHE`, or `$XDG_CACHE_HOME/dassl`, or `~/.cache/dassl`, joined with `parts`.
    """
    if os.environ.get("DASSL_CACHE"):
        root = Path(os.environ["DASSL_CACHE"]).expanduser()
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dassl"
    return root.joinpath(*parts)
