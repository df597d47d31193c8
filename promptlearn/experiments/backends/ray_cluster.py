"""Runs as tasks of a Ray cluster: one that exists, or one that is started on this machine for the command.

Each node needs the same Python environment, and the checkout at the same path. A node that shares the output folder
works in it. On any other, a run gets its model through Ray and works in a folder of the same name, whose files travel
back when it has ended. A run whose node is lost starts on another one; with shared storage it resumes.
"""

import contextlib
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from basics import UserError, explain_missing_package, mkdir_if_missing, write_atomic
from promptlearn.experiments.backends.on_node import TrainProcess
from promptlearn.experiments.backends.resources import Resources
from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.discovery import RESULTS
from promptlearn.experiments.protocols import Job

try:
    import ray
except ModuleNotFoundError as error:
    raise explain_missing_package(error) from error

LOOK = 0.2  # seconds between looks at the tasks
GRACE = 30.0  # seconds that runs have to save their state when the launcher is stopped
CONNECT = 5.0  # seconds for a cluster to answer
RETRIES = 100  # how often a run may lose its node
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

Files = dict[str, bytes]  # by their path in a folder


def train(command: list[str], folder: str, threads: int, output: str, probe: str, model: tuple[str, Files]):
    """Run train.py on a node.

    Args:
        command, folder, threads: as in `TrainProcess`.
        output: the run's folder.
        probe: a file that exists where the storage is shared.
        model: the folder of the model that is tested, and its files; empty if none is.

    Returns:
        Its exit status, the end of its stderr, and, unless the storage is shared, the files of its folder.
    """
    if not Path(command[1]).is_file():
        return 2, f"error: {command[1]}: expected the checkout at the same path on each node, got nothing there.", {}
    shared = Path(probe).exists()
    new = [path for path in (output, model[0]) if path and not Path(path).exists()]
    if not shared:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in model[1].items():
            write_atomic(Path(model[0], name), content)
    process = TrainProcess(command, folder, threads)
    try:
        status, stderr = process.wait()
        return status, stderr, {} if shared else files_of(Path(output))
    except BaseException:  # the task is canceled
        process.save_and_end()
        raise
    finally:
        if not shared:
            for own in new:
                shutil.rmtree(own, ignore_errors=True)


def files_of(folder: Path) -> Files:
    """Read all files of a run's folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class RayRun:
    """A run that waits for a node or runs on one."""

    def __init__(self, job: Job, task, backend: "RayBackend"):
        self.job, self.task, self.backend = job, task, backend
        self.status: int | None = None
        self.stderr = ""

    def poll(self) -> int | None:
        self.backend.look()
        return self.status

    def collect(self) -> None:
        """Take over the outcome of the task, and write the files that it sent, the results last."""
        try:
            self.status, self.stderr, files = ray.get(self.task)
        except ray.exceptions.RayError as error:
            self.status, self.stderr = 1, str(error)
            return
        for name in sorted(files, key=RESULTS.__eq__):
            write_atomic(self.job.folder / name, files[name])

    def errors(self) -> str:
        return self.stderr

    def terminate(self) -> None:
        if self.status is None:
            ray.cancel(self.task)

    def close(self) -> None:
        if self.status is None:
            ray.wait([self.task], timeout=GRACE)
            ray.cancel(self.task, force=True)


class RayBackend:
    """Starts runs as tasks of Ray.

    Args:
        output: the folder of all runs.
        address: of a cluster, host:port or "auto"; empty: a cluster of this machine alone is started.

    Raises:
        UserError: no cluster answers.
    """

    def __init__(
        self, checkout: Checkout, data: Path | None, output: Path, resources: Resources, address: str | None = None
    ):
        self.checkout, self.data, self.resources = checkout, data, resources
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a run without GPUs may see all, as locally
        self.silence = contextlib.ExitStack()  # Ray reports lost nodes on stdout, with pages of its logs
        self.silence.enter_context(contextlib.redirect_stdout(self.silence.enter_context(open(os.devnull, "w"))))
        connect(address)
        mkdir_if_missing(output)
        self.probe = output / f".{uuid.uuid4().hex}.probe"
        write_atomic(self.probe, b"")
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": RETRIES}
        options |= {"memory": bytes_of(resources.memory)} if resources.memory else {}
        self.train = ray.remote(train).options(**options)
        self.runs: list[RayRun] = []
        self.next_look = 0.0

    def room(self, running: int) -> int:
        return self.resources.parallel - running if self.resources.parallel else sys.maxsize

    def adopt(self, jobs: Sequence[Job]) -> list[RayRun]:
        return []  # runs end with the command that started them

    def start(self, jobs: Sequence[Job]) -> list[RayRun]:
        program, folder = [sys.executable, str(self.checkout.root / "train.py")], str(self.checkout.folder)
        started = []
        for job in jobs:
            command = [*program, *job.arguments(self.checkout, self.data)]
            model = (str(job.source.folder), files_of(job.source.folder)) if job.source else ("", {})
            task = self.train.remote(command, folder, self.resources.cpus, str(job.folder), str(self.probe), model)
            started.append(RayRun(job, task, self))
        self.runs += started
        return started

    def look(self) -> None:
        """Collect the tasks that have ended, every LOOK seconds."""
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + LOOK
        open_runs = {run.task: run for run in self.runs if run.status is None}
        if open_runs:
            ended, _ = ray.wait(list(open_runs), num_returns=len(open_runs), timeout=0)
            for task in ended:
                open_runs[task].collect()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.probe.unlink()
        ray.shutdown()
        self.silence.close()


def connect(address: str | None) -> None:
    """Connect to a cluster, or start one on this machine.

    Raises:
        UserError: none answers at the address.
    """
    advice = "Start one (ray start --head), correct --address, or leave it out."
    options = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False if not address else None}
    try:
        if address and address != "auto":
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=CONNECT).close()
        ray.init(address=address or "local", **options)
    except (OSError, ValueError, ConnectionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--address: expected a Ray cluster at {address}, got none ({reason}). {advice}") from error


def bytes_of(memory: str) -> int:
    """Return the bytes of a text such as 16G.

    Raises:
        UserError: another text.
    """
    match = re.fullmatch(r"(\d+)([KMGT])B?", memory.strip(), re.IGNORECASE)
    if match is None:
        raise UserError(f"--memory: expected a number with K, M, G, or T, such as 16G, got {memory!r}. Correct it.")
    return int(match[1]) * UNITS[match[2].upper()]
