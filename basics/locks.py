"""Locks that keep a second process out of a folder, and files in it that must be regular files."""

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path

from basics.errors import UserError, explain_os_error

LOCK_FILE = ".lock"
# Do not follow links, and do not wait for the other end of a pipe.
NO_WAIT = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def open_regular(path, flags):
    """Open a file of a run's folder, and return its descriptor; it is created if it is missing and `flags` write.

    Raises:
        UserError: it is a symbolic link, a pipe, or anything else that is not a regular file, or cannot be opened.
    """
    try:
        handle = os.open(path, flags | NO_WAIT, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise explain_os_error(path, "an accessible file", error) from error
        handle = None
    if handle is None or not stat.S_ISREG(os.fstat(handle).st_mode):
        if handle is not None:
            os.close(handle)
        raise UserError(f"{path}: expected a regular file, got a link, a pipe, or a device. Delete it.")
    os.set_blocking(handle, True)
    return handle


@contextmanager
def lock_folder(folder):
    """Lock a folder for this process; yield True, or False if another process has locked it.

    It is a record lock: it ends with the process, however that ends, and surviving data workers do not inherit it.

    Raises:
        UserError: the folder cannot be written.
        OSError: its file system has no locks.
    """
    import fcntl  # not on Windows, where everything that needs no folder works

    with os.fdopen(open_regular(Path(folder) / LOCK_FILE, os.O_RDWR | os.O_CREAT), "r+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            free = False
        yield free


def is_locked(folder):
    """Return whether another process works in a folder."""
    if not (Path(folder) / LOCK_FILE).exists():
        return False
    try:
        with lock_folder(folder) as free:
            return not free
    except (UserError, OSError):
        return False  # starting a run there will report it
