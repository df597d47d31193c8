"""The folder of a run: one process at a time works in it, and `status.json` records the run's state.

`{"state": "running" | "done" | "failed" | "stopped", "pid", "host", "started", "ended", "why"}`. The state is that of
the last process that worked in the folder. A killed process leaves "running".
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from basics import (
    Stopped,
    UserError,
    explain_os_error,
    lock_folder,
    mkdir_if_missing,
    notify,
    read_json,
    sweep_litter,
    write_json,
)

STATUS_FILE = "status.json"


class FolderTaken(UserError):
    """The folder belongs to another run and stays unchanged."""


class FolderInUse(FolderTaken):
    """Another process works in the folder."""

    status = 75  # EX_TEMPFAIL: try again later


@contextmanager
def run_folder(folder: str | Path) -> Iterator[None]:
    """Reserve a run's folder for this process; create it if needed, and delete the partial files of killed processes.

    On exit, `status.json` records "done", or how else the run ended.

    Raises:
        FolderInUse: another process works in it; the message names it.
        UserError: it cannot be created or written.
    """
    folder = Path(folder)
    mkdir_if_missing(folder)
    with _locked(folder):
        sweep_litter(folder)
        before = read_status(folder)
        if before is not None and before.get("state") == "running":
            notify(f"Note: the last run in this folder did not record its end; was it killed? ({_process(before)})")
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
            with suppress(UserError):  # on a full disk, the error to report is the one that is being raised
                write_json({**status, "state": state, "ended": _now(), "why": why}, folder / STATUS_FILE)
            raise
        write_json({**status, "state": "done", "ended": _now(), "why": None}, folder / STATUS_FILE)


def read_status(folder: str | Path) -> dict | None:
    """Return the content of `status.json`; None if it is missing or unreadable."""
    with suppress(UserError):
        status = read_json(Path(folder) / STATUS_FILE)
        return status if isinstance(status, dict) else None
    return None


def fresh_folder(folder: str | Path) -> Path:
    """Create and return `folder` itself if it is missing or empty, else the first free one of `folder`-2, -3, ..."""
    folder = Path(folder)
    mkdir_if_missing(folder)
    if not any(folder.iterdir()):
        return folder
    number = 2
    while True:
        numbered = folder.with_name(f"{folder.name}-{number}")
        try:
            numbered.mkdir()
            return numbered
        except FileExistsError:
            number += 1
        except OSError as error:
            raise explain_os_error(numbered, "a folder that can be created", error) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            if not stack.enter_context(lock_folder(folder)):
                raise FolderInUse(
                    f"{folder}: expected a folder that is not in use, got one in use by {_process(read_status(folder))}"
                    ". Wait for it, or choose another --output-dir."
                )
        except OSError as error:
            notify(f"Note: {folder} cannot be locked ({error.strerror}). Do not start a second run in it.")
        yield


def _process(status: dict | None) -> str:
    status = status or {}
    return f"process {status.get('pid', '?')} on {status.get('host', '?')} (started {status.get('started', '?')})"


def _restore(folder: Path, status: dict | None) -> None:
    if status is None:
        (folder / STATUS_FILE).unlink()
    else:
        write_json(status, folder / STATUS_FILE)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
