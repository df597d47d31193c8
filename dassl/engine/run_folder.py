"""The folder of a run: for one process at a time, with a `status.json` that says how it stands with the run.

`{"state": "running" | "done" | "failed" | "stopped", "pid", "host", "started", "ended", "why"}`. The state is that of
the last process that worked in the folder. One that was killed could say nothing: then the state is still "running".
"""

import errno
import fcntl
import os
import socket
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from basics import Stopped, UserError, mkdir_if_missing, read_json, sweep_litter, write_json

STATUS_FILE = "status.json"
LOCK_FILE = ".lock"


class FolderTaken(UserError):
    """The folder belongs to another run, and stays as it is."""


@contextmanager
def run_folder(folder):
    """Have a run's folder for this process alone, made if need be, free of what killed processes left half-written.

    On leaving, `status.json` says "done", or how it ended otherwise.

    Raises:
        FolderTaken: another process works in it; the message names it.
        UserError: it cannot be made or written.
    """
    folder = Path(folder)
    mkdir_if_missing(folder)
    with _locked(folder):
        sweep_litter(folder)
        before = read_status(folder)
        if before is not None and before.get("state") == "running":
            print(f"Note: the last run here ended without a word (killed?): {_process(before)}")
        status = {"state": "running", "pid": os.getpid(), "host": socket.gethostname(), "started": _now()}
        write_json(status, folder / STATUS_FILE)
        try:
            yield
        except FolderTaken:
            _restore(folder, before)
            raise
        except BaseException as error:
            state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            why = str(error) if isinstance(error, UserError | Stopped) else f"{type(error).__name__}: {error}"
            with suppress(UserError):  # on a full disk, what filled it is the error to be told
                write_json({**status, "state": state, "ended": _now(), "why": why}, folder / STATUS_FILE)
            raise
        write_json({**status, "state": "done", "ended": _now(), "why": None}, folder / STATUS_FILE)


def read_status(folder):
    """The content of `status.json`; None: there is none that can be read."""
    with suppress(UserError):
        status = read_json(Path(folder) / STATUS_FILE)
        return status if isinstance(status, dict) else None


def fresh_folder(folder):
    """`folder` itself if nothing is in it, else the first of `folder`-2, -3, ... that is not there. It is made."""
    folder = Path(folder)
    mkdir_if_missing(folder)
    if not any(folder.iterdir()):
        return folder
    for number in count(2):
        numbered = folder.with_name(f"{folder.name}-{number}")
        try:
            numbered.mkdir()
            return numbered
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f'cannot make the folder "{numbered}": {error.strerror}') from error


@contextmanager
def _locked(folder):
    # A record lock: it ends with the process, however that ends, and data workers that outlive it do not inherit it.
    try:
        file = open(folder / LOCK_FILE, "a")
    except OSError as error:
        raise UserError(f'cannot write in "{folder}": {error.strerror}') from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise FolderTaken(
                    f'"{folder}" is in use by {_process(read_status(folder))}: wait for it, or choose another '
                    "--output-dir"
                ) from error
            print(f'Note: no locks on the file system of "{folder}" ({error.strerror}): start no second run there')
        yield


def _process(status):
    status = status or {}
    return f"process {status.get('pid', '?')} on {status.get('host', '?')} (started {status.get('started', '?')})"


def _restore(folder, status):
    if status is None:
        (folder / STATUS_FILE).unlink()
    else:
        write_json(status, folder / STATUS_FILE)


def _now():
    return datetime.now().astimezone().isoformat(timespec="seconds")
