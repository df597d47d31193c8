"""Where runs run: on this machine (`local`), through Slurm (`slurm`), or on a Ray cluster (`ray_cluster`).

The launcher decides what runs next, and a backend starts it. Only the chosen backend is imported.
"""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from basics import error_in
from promptlearn.experiments.discovery import NOT_APPLICABLE, result_of
from promptlearn.experiments.protocols import Job

USERS_MISTAKE, FOLDER_IN_USE = 2, 75  # exit statuses of train.py
TAIL = 15  # lines of a failed job's stderr that are shown


class Run(Protocol):
    """A job that was started."""

    job: Job

    def poll(self) -> int | None:
        """Return its exit status as subprocess does (negative for a signal), or None while it runs."""
        ...

    def errors(self) -> str:
        """Return what it wrote to stderr, once it has ended."""
        ...

    def terminate(self) -> None:
        """Ask it to save its state and end."""
        ...

    def close(self) -> None:
        """End it, after some time for its state, and free what it holds. May be called again."""
        ...


class Backend(Protocol):
    """Starts runs."""

    def room(self, running: int) -> int:
        """Return how many more runs may start, next to those that run."""
        ...

    def adopt(self, jobs: list[Job]) -> Sequence[Run]:
        """Return the runs of these jobs that an earlier command has left running here."""
        ...

    def start(self, jobs: list[Job]) -> Sequence[Run]:
        """Start jobs that wait for nothing.

        Raises:
            UserError: the backend refuses them.
        """
        ...

    def close(self) -> None:
        """Free what the backend holds; its runs are closed."""
        ...


def problem_of(run: Run, status: int) -> str:
    """Return what went wrong in a run that has ended with this exit status; empty if nothing did."""
    job = run.job
    result = result_of(job) if status in (0, USERS_MISTAKE) else None
    if result is not None and (status == 0 or result["status"] == NOT_APPLICABLE):
        return ""
    if status == 0:
        problem = f"ended, but {job.folder} has no results.json for {job.request}"
    elif status < 0:
        problem = f"killed by {signal.Signals(-status).name}"
    else:
        problem = f"exit status {status}"
    tail = [f"    {line}" for line in error_in(run.errors()).splitlines() if line.strip()][-TAIL:]
    if status == USERS_MISTAKE:
        return "\n".join([problem, *tail])  # the message is complete
    log: Path = job.folder / "log.txt"
    where = f"its log: {log}" if log.is_file() else "it did not write a log"
    return "\n".join([f"{problem}; {where}", *tail])
