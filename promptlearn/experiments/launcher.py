"""Runs jobs, each in a process of its own, one or several at a time."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from basics import can_redraw, error_in, for_this_process, is_locked, mkdir_if_missing, notify, show_progress
from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.discovery import NOT_APPLICABLE, result_of
from promptlearn.experiments.protocols import Job
from promptlearn.experiments.warm import ForkedRun, WarmProcess, is_possible

USERS_MISTAKE, FOLDER_IN_USE = 2, 75  # exit statuses of train.py
TAIL = 15  # lines of a failed job's stderr that are shown
GRACE = 10.0  # seconds that a job has to end by itself when the launcher is stopped
POLL = 0.05  # seconds between looks at the running jobs
REFRESH = 1.0  # seconds between updates of the bar's clock
BAR = "{n_fmt} of {total_fmt} runs |{bar}| {elapsed}, {remaining} left"


class Process:
    """A running job. It ends with this process, even if that is killed.

    Unless `verbose`, its stdout is hidden (train.py writes the same lines to log.txt), its stderr is kept and its own
    bars are off, so that what stderr ends with is the error.
    """

    def __init__(self, job: Job, data: Path | None, start: "Starter"):
        self.job = job
        self.stderr = tempfile.NamedTemporaryFile()  # noqa: SIM115  (closed in `close`)
        self.process = start(job.arguments(start.checkout, data), self.stderr)

    def problem(self) -> tuple[str, int]:
        """Return what went wrong ("" if nothing did) and the exit status, once the process has ended."""
        job, status = self.job, self.process.returncode
        result = result_of(job) if status in (0, USERS_MISTAKE) else None
        if result is not None and (status == 0 or result["status"] == NOT_APPLICABLE):
            return "", 0
        if status == 0:
            problem = f"ended, but {job.folder} has no results.json for {job.request}"
        elif status < 0:
            problem = f"killed by {signal.Signals(-status).name}"
        else:
            problem = f"exit status {status}"
        self.stderr.seek(0)
        lines = error_in(self.stderr.read().decode(errors="replace")).splitlines()
        tail = [f"    {line}" for line in lines if line.strip()][-TAIL:]
        if status == USERS_MISTAKE:
            return "\n".join([problem, *tail]), status  # the message is complete
        log = job.folder / "log.txt"
        where = f"its log: {log}" if log.is_file() else "it did not write a log"
        return "\n".join([f"{problem}; {where}", *tail]), status

    def close(self) -> None:
        """End the process, however the launcher is left."""
        wait_or_kill(self.process)
        self.stderr.close()


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

    def __call__(self, arguments: list[str], stderr) -> subprocess.Popen | ForkedRun:
        if self.can_fork:
            try:
                self.warm = self.warm or WarmProcess(self.checkout.root, self.checkout.folder, self.environment)
                outputs = (None, None) if self.verbose else (os.devnull, stderr.name)
                return self.warm.start(arguments, *outputs)
            except OSError:
                self.can_fork = False  # if train.py is the cause, a process of its own will report it
        hidden = {} if self.verbose else {"stdout": subprocess.DEVNULL, "stderr": stderr}
        return subprocess.Popen(
            [sys.executable, str(self.checkout.root / "train.py"), *arguments],
            cwd=self.checkout.folder,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            **hidden,
        )

    def close(self) -> None:
        if self.warm is not None:
            self.warm.close()


def launch(
    jobs: list[Job], checkout: Checkout, data: Path | None = None, verbose: bool = False, at_once: int = 1
) -> dict[Job, int]:
    """Run the unfinished jobs and return those that are still unfinished: the failed ones and their dependents.

    Each has an exit status: 1, or 2 if all failed because of a user's mistake.

    A failed job is reported on stderr at once and does not stop the others; a reason that several share is reported
    once. A job is done when its results.json answers its request. All folders are created before the first run, so that
    missing results can be recognized. A job that another launcher is running is waited for. KeyboardInterrupt ends the
    running processes and is passed on.

    Args:
        at_once: how many processes share the cores; the results are those of runs with so many threads fewer.
    """
    for job in jobs:
        mkdir_if_missing(job.folder)
    return Launcher(jobs, checkout, data, verbose, at_once).run()


class Progress:
    """What the user sees of the jobs: on a terminal a bar and, below it, what runs; elsewhere a line for each done job.

    Args:
        total: how many jobs will run.
        verbose: the jobs print, so there is only the line for each.
    """

    def __init__(self, total: int, verbose: bool):
        self.total, self.done, self.next_refresh = total, 0, 0.0
        off = verbose or not total
        self.lines = not can_redraw(sys.stderr) or off
        options = {"delay": 0, "leave": True, "smoothing": 0, "disable": off, "bar_format": BAR}
        self.bar = show_progress(total=total, **options)
        self.now = show_progress(name="  starting", delay=0, disable=off, bar_format="{desc}")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception) -> None:
        self.now.close()
        self.bar.close()

    def show(self, jobs: list[Job]) -> None:
        """Show what runs, and keep the clock running during a long job."""
        if not self.lines and time.monotonic() >= self.next_refresh:
            self.next_refresh = time.monotonic() + REFRESH
            self.bar.refresh()
            width = shutil.get_terminal_size().columns - 1
            self.now.set_description_str(f"  {name_jobs(jobs, width - 2)}")

    def count(self, job: Job, problem: str) -> None:
        """Count a job that has ended."""
        self.done += 1
        self.next_refresh = 0.0
        self.bar.update()
        if self.lines and not problem:
            notify(f"{self.done} of {self.total}: {job}")


def name_jobs(jobs: list[Job], width: int) -> str:
    """Name jobs in at most `width` letters: all of them, or the first one and how many others."""
    text = "; ".join(map(str, jobs))
    if len(text) <= width:
        return text
    others = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
    first, room = str(jobs[0]), width - len(others)
    return (first if len(first) <= room else f"{first[: room - 3]}...") + others


class Launcher:
    """The state of `launch`."""

    def __init__(self, jobs: list[Job], checkout: Checkout, data: Path | None, verbose: bool, at_once: int):
        threads = max((os.cpu_count() or 1) // at_once, 1) if at_once > 1 else None
        self.start = Starter(checkout, verbose, threads)
        self.data = data
        self.at_once = at_once
        self.pending = dict.fromkeys(job for job in jobs if result_of(job) is None)  # in their order
        self.running: list[Process] = []
        self.failed: dict[Job, int] = {}
        self.reported: dict[str, Job] = {}  # problem -> the first job that had it
        self.waits = False  # for jobs of another launcher
        self.progress = Progress(len(self.pending), verbose)

    def run(self) -> dict[Job, int]:
        with self.progress:
            try:
                while self.pending or self.running:
                    self.start_ready()
                    self.progress.show([process.job for process in self.running])
                    time.sleep(POLL)
                    self.collect()
            finally:
                for process in self.running:
                    process.process.terminate()
                for process in self.running:
                    process.close()
                self.start.close()
        mistakes_only = all(status == USERS_MISTAKE for status in self.failed.values())
        return dict.fromkeys(self.failed, USERS_MISTAKE if mistakes_only else 1)

    def start_ready(self) -> None:
        """Start what can be, as long as there is room."""
        busy = {process.job for process in self.running}
        for job in list(self.pending):
            if len(self.running) == self.at_once:
                return
            if job.source in self.pending or job.source in busy:
                continue
            if is_locked(job.folder):
                if not self.waits:
                    notify("another process is working on some of these runs; waiting for it")
                self.waits = True
                continue
            del self.pending[job]
            if job.source in self.failed:
                self.ended(job, "not started, because the training that it tests failed", self.failed[job.source])
            elif result_of(job) is not None:
                self.ended(job)  # its training came out as before, or another launcher was quicker
            else:
                self.running.append(Process(job, self.data, self.start))
                busy.add(job)

    def collect(self) -> None:
        """Remove the runs that have ended, and report the failed ones."""
        for process in [process for process in self.running if process.process.poll() is not None]:
            self.running.remove(process)
            if process.process.returncode == FOLDER_IN_USE:  # another launcher was quicker
                self.pending[process.job] = None
            else:
                self.ended(process.job, *process.problem())
            process.close()

    def ended(self, job: Job, problem: str = "", status: int = 0) -> None:
        if problem:
            self.failed[job] = status
            reason = f"as {self.reported[problem]}" if problem in self.reported else problem
            self.reported.setdefault(problem, job)
            notify(f"FAILED: {job}: {reason}")
        self.progress.count(job, problem)
