"""Decides which jobs run next, waits for them, and reports them; a backend starts them."""

import shutil
import sys
import time

from basics import can_redraw, is_locked, mkdir_if_missing, notify, show_progress
from promptlearn.experiments.backends import FOLDER_IN_USE, USERS_MISTAKE, Backend, Run, problem_of
from promptlearn.experiments.discovery import result_of
from promptlearn.experiments.protocols import Job

POLL = 0.05  # seconds between looks at the running jobs
REFRESH = 1.0  # seconds between updates of the bar's clock
BAR = "{n_fmt} of {total_fmt} runs |{bar}| {elapsed}, {remaining} left"


def launch(jobs: list[Job], backend: Backend, verbose: bool = False) -> dict[Job, int]:
    """Run the unfinished jobs and return those that are still unfinished: the failed ones and their dependents.

    Each has an exit status: 1, or 2 if all failed because of a user's mistake.

    A failed job is reported on stderr at once and does not stop the others; a reason that several share is reported
    once. A job is done when its results.json answers its request. All folders are created before the first run, so that
    missing results can be recognized. A job that another launcher is running is waited for. KeyboardInterrupt ends the
    running jobs and is passed on.

    Args:
        backend: closed at the end.
        verbose: the jobs print, so there is no bar.
    """
    for job in jobs:
        mkdir_if_missing(job.folder)
    return Launcher(jobs, backend, verbose).run()


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

    def __init__(self, jobs: list[Job], backend: Backend, verbose: bool):
        self.backend = backend
        self.pending = dict.fromkeys(job for job in jobs if result_of(job) is None)  # in their order
        self.running: list[Run] = []
        self.failed: dict[Job, int] = {}
        self.reported: dict[str, Job] = {}  # problem -> the first job that had it
        self.waits = False  # for jobs of another launcher
        self.progress = Progress(len(self.pending), verbose)

    def run(self) -> dict[Job, int]:
        with self.progress:
            try:
                self.running += self.backend.adopt(list(self.pending))
                for run in self.running:
                    del self.pending[run.job]
                while self.pending or self.running:
                    if ready := self.take_ready():
                        self.running += self.backend.start(ready)
                    self.progress.show([run.job for run in self.running])
                    time.sleep(POLL)
                    self.collect()
            finally:
                for run in self.running:
                    run.terminate()
                for run in self.running:
                    run.close()
                self.backend.close()
        mistakes_only = all(status == USERS_MISTAKE for status in self.failed.values())
        return dict.fromkeys(self.failed, USERS_MISTAKE if mistakes_only else 1)

    def take_ready(self) -> list[Job]:
        """Remove the jobs that can start from the pending ones, as long as there is room."""
        ready: list[Job] = []
        room = self.backend.room(len(self.running))
        busy = {run.job for run in self.running}
        for job in list(self.pending):
            if len(ready) >= room:
                break
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
                ready.append(job)
                busy.add(job)
        return ready

    def collect(self) -> None:
        """Remove the runs that have ended, and report the failed ones."""
        for run, status in [(run, run.poll()) for run in self.running]:
            if status is None:
                continue
            self.running.remove(run)
            if status == FOLDER_IN_USE:  # another launcher was quicker
                self.pending[run.job] = None
            else:
                problem = problem_of(run, status)
                self.ended(run.job, problem, status if problem else 0)
            run.close()

    def ended(self, job: Job, problem: str = "", status: int = 0) -> None:
        if problem:
            self.failed[job] = status
            reason = f"as {self.reported[problem]}" if problem in self.reported else problem
            self.reported.setdefault(problem, job)
            notify(f"FAILED: {job}: {reason}")
        self.progress.count(job, problem)
