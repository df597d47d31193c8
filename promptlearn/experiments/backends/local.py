"""Runs on this machine, each in a process of its own, one or several at a time.

With GPUs, each run sees one of them, so that runs side by side do not share one by accident.
"""

import os
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from basics import for_this_process
from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.protocols import Job
from promptlearn.experiments.warm import ForkedRun, WarmProcess, is_possible

GRACE = 10.0  # seconds that a job has to end by itself when the launcher is stopped


def wait_or_kill(process: subprocess.Popen | ForkedRun) -> None:
    """Give a process that received a stop request time to save its state."""
    try:
        process.wait(timeout=GRACE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


class Starter:
    """Starts runs of train.py: forked from a warm process where possible, otherwise as new processes.

    Args:
        verbose: the runs print, instead of writing their stderr to the file that each start names.
        threads: for each run; None: as many as this process would get.
    """

    def __init__(self, checkout: Checkout, verbose: bool = False, threads: int | None = None):
        self.checkout, self.verbose = checkout, verbose
        self.environment = os.environ | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}
        self.environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
        self.environment |= for_this_process() | ({} if verbose else {"TQDM_DISABLE": "1"})
        self.warm: WarmProcess | None = None
        self.can_fork = is_possible(checkout.root)

    def __call__(self, arguments: list[str], stderr, gpu: str | None = None) -> subprocess.Popen | ForkedRun:
        """Start a run that sees one GPU; None: those that this process sees."""
        own = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        if self.can_fork:
            try:
                self.warm = self.warm or WarmProcess(self.checkout.root, self.checkout.folder, self.environment)
                outputs = (None, None) if self.verbose else (os.devnull, stderr.name)
                return self.warm.start(arguments, *outputs, own)
            except OSError:
                self.can_fork = False  # if train.py is the cause, a process of its own will report it
        hidden = {} if self.verbose else {"stdout": subprocess.DEVNULL, "stderr": stderr}
        return subprocess.Popen(
            [sys.executable, str(self.checkout.root / "train.py"), *arguments],
            cwd=self.checkout.folder,
            stdin=subprocess.DEVNULL,
            env=self.environment | own,
            **hidden,
        )

    def close(self) -> None:
        if self.warm is not None:
            self.warm.close()


class LocalRun:
    """A running job. It ends with this process, even if that is killed.

    Unless the starter is verbose, its stdout is hidden (train.py writes the same lines to log.txt), its stderr is kept
    and its own bars are off, so that what stderr ends with is the error.

    Attributes:
        gpu: what it sees as CUDA_VISIBLE_DEVICES; None: what this process sees.
    """

    def __init__(self, job: Job, data: Path | None, start: Starter, gpu: str | None = None):
        self.job, self.gpu = job, gpu
        self.stderr = tempfile.NamedTemporaryFile()  # noqa: SIM115  (closed in `close`)
        self.process = start(job.arguments(start.checkout, data), self.stderr, gpu)

    def poll(self) -> int | None:
        return self.process.poll()

    def errors(self) -> str:
        self.stderr.seek(0)
        return self.stderr.read().decode(errors="replace")

    def terminate(self) -> None:
        self.process.terminate()

    def close(self) -> None:
        wait_or_kill(self.process)
        self.stderr.close()


class LocalBackend:
    """Starts runs on this machine.

    Args:
        at_once: how many processes share the cores and GPUs; the results are those of runs with so many threads fewer.
            None: one for each place on a GPU, or a single one.
        per_gpu: how many runs share a GPU.
    """

    def __init__(
        self, checkout: Checkout, data: Path | None, verbose: bool, at_once: int | None = None, per_gpu: int = 1
    ):
        gpus = visible_gpus()
        self.places = [gpu for _ in range(per_gpu) for gpu in gpus]
        self.at_once = at_once or max(len(self.places), 1)
        threads = max((os.cpu_count() or 1) // self.at_once, 1) if self.at_once > 1 else None
        self.starter = Starter(checkout, verbose, threads)
        self.data = data
        self.runs: list[LocalRun] = []

    def room(self, running: int) -> int:
        return self.at_once - running

    def adopt(self, jobs: list[Job]) -> list[LocalRun]:
        return []  # runs end with the command that started them

    def start(self, jobs: list[Job]) -> list[LocalRun]:
        started = []
        for job in jobs:
            self.runs = [run for run in self.runs if run.poll() is None]
            started.append(LocalRun(job, self.data, self.starter, self.free_gpu()))
            self.runs.append(started[-1])
        return started

    def free_gpu(self) -> str | None:
        """Return the GPU with the fewest runs; None on a machine without."""
        used = [run.gpu for run in self.runs]
        return min(self.places, key=used.count) if self.places else None

    def close(self) -> None:
        self.starter.close()


def visible_gpus() -> list[str]:
    """List the GPUs that a run here would see, as CUDA_VISIBLE_DEVICES names them, without importing torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in re.split(r"\s*,\s*", chosen.strip()) if name and name != "-1"]
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
        return re.findall(r"^GPU (\d+):", listed, re.MULTILINE)
    return []
