"""Runs through Slurm, by submitit: the jobs that can start together are one job array.

A run that Slurm announces to stop (its time limit, or preemption) saves its state and goes into the queue again; one
whose node is lost is put there by Slurm. Either way it resumes from its last saved state.

Which Slurm job is which run stands in OUTPUT/slurm/jobs.json, so the same command finds runs that an earlier one left.
"""

import io
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

from basics import UserError, explain_missing_package, mkdir_if_missing, read_json, write_json
from promptlearn.experiments.backends.on_node import TrainProcess
from promptlearn.experiments.backends.resources import Resources
from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.discovery import result_of
from promptlearn.experiments.protocols import Job

try:
    from submitit import SlurmExecutor, SlurmJob
    from submitit.core.utils import DelayedSubmission, FailedJobError
except ModuleNotFoundError as error:
    raise explain_missing_package(error) from error

LOOK = 2.0  # seconds between looks at Slurm's queue
ANSWER = 10.0  # seconds for Slurm to answer
PATIENCE = 20.0  # seconds for the files of a job that has left the queue to appear on a shared file system
GRACE = 30.0  # seconds that runs have to save their state when the launcher is stopped
TIMEOUTS = 1000  # how often a run may reach its time limit


class TrainCall:
    """A call of train.py on a node, as submitit stores and runs it. The arguments are those of `TrainProcess`."""

    def __init__(self, command: list[str], folder: str, threads: int):
        self.call = (command, folder, threads)
        self.process: TrainProcess | None = None

    def __call__(self) -> tuple[int, str]:
        """Run it. Return its exit status (negative for a signal) and the end of its stderr."""
        self.process = TrainProcess(*self.call)
        return self.process.wait()

    def checkpoint(self) -> DelayedSubmission:
        """Let the run save its state, and return what continues it. submitit calls it ahead of a job's end."""
        if self.process is not None:
            self.process.save_and_end()
        return DelayedSubmission(TrainCall(*self.call))


class SlurmRun:
    """A run in Slurm's queue or on a node."""

    def __init__(self, job: Job, slurm: SlurmJob, backend: "SlurmBackend"):
        self.job, self.slurm, self.backend = job, slurm, backend
        self.status: int | None = None
        self.stderr = ""
        self.end = 0.0  # when it is canceled, after a request to end
        self.left: float | None = None  # when it had left the queue without a result

    def poll(self) -> int | None:
        self.backend.look()
        return self.status

    def update(self, in_queue: bool) -> None:
        """Take over the job's result, if there is one; without one, it has failed once it has left the queue."""
        if self.status is not None:
            return
        if self.slurm.paths.result_pickle.exists():
            try:
                self.status, self.stderr = self.slurm.result()
            except FailedJobError as error:
                self.status, self.stderr = 1, str(error)
        elif in_queue:
            self.left = None
        elif self.left is None:
            self.left = time.monotonic()
        elif time.monotonic() - self.left > PATIENCE:
            self.status = 1
            self.stderr = f"Slurm job {self.slurm.job_id} ended without a result. See {self.slurm.paths.stderr}."

    def errors(self) -> str:
        return self.stderr

    def terminate(self) -> None:
        if self.status is None:
            self.end = time.monotonic() + GRACE
            scancel("--state=PENDING", self.slurm.job_id)
            scancel("--signal=TERM", self.slurm.job_id)

    def close(self) -> None:
        while self.status is None and time.monotonic() < self.end and queued([self.slurm.job_id]):
            time.sleep(1)
            self.update(in_queue=True)
        if self.status is None:
            scancel(self.slurm.job_id)
        self.backend.forget(self)


class SlurmBackend:
    """Starts runs as Slurm jobs.

    Args:
        output: a folder that all nodes share; OUTPUT/slurm gets the jobs' files.

    Raises:
        UserError: there is no Slurm on this machine.
    """

    def __init__(self, checkout: Checkout, data: Path | None, output: Path, resources: Resources):
        if shutil.which("sbatch") is None:
            raise UserError("--on slurm: expected Slurm's commands on this machine (sbatch), got none. Log in to the "
                            "cluster's head node, or use --on local.")  # fmt: skip
        if resources.gpus != int(resources.gpus):
            raise UserError(f"--gpus: expected a whole number on Slurm, got {resources.gpus}. Correct it.")
        self.checkout, self.data, self.resources = checkout, data, resources
        self.folder = output / "slurm"
        mkdir_if_missing(self.folder)
        self.memory = self.folder / "jobs.json"  # {folder of the run: Slurm's job id}
        self.ids: dict[str, str] = read_json(self.memory) if self.memory.exists() else {}
        self.runs: list[SlurmRun] = []
        self.next_look = 0.0

    def room(self, running: int) -> int:
        return self.resources.parallel - running if self.resources.parallel else sys.maxsize

    def adopt(self, jobs: Sequence[Job]) -> list[SlurmRun]:
        """Return the runs of these jobs that an earlier command has submitted, running or not."""
        known = [job for job in jobs if str(job.folder) in self.ids]
        self.runs += [SlurmRun(job, SlurmJob(self.folder, self.ids[str(job.folder)]), self) for job in known]
        return self.runs[len(self.runs) - len(known) :]

    def start(self, jobs: Sequence[Job], after: Sequence[SlurmRun] = ()) -> list[SlurmRun]:
        """Submit jobs as one array.

        Args:
            after: runs that must have ended before.
        """
        options = self.options()
        if after:
            ids = sorted({run.slurm.job_id.partition("_")[0] for run in after})
            options["dependency"] = ":".join(["afterany", *ids])
        program, folder = [sys.executable, str(self.checkout.root / "train.py")], str(self.checkout.folder)
        commands = [[*program, *job.arguments(self.checkout, self.data)] for job in jobs]
        executor = SlurmExecutor(self.folder, max_num_timeout=TIMEOUTS)
        executor.update_parameters(**options)
        try:
            with redirect_stderr(io.StringIO()), executor.batch():  # submitit prints what the error repeats
                submitted = [executor.submit(TrainCall(command, folder, self.resources.cpus)) for command in commands]
        except FailedJobError as error:
            said = "; ".join(re.findall(r"sbatch: error: (.+)", str(error))) or str(error).strip()
            message = f"--on slurm: expected jobs that Slurm accepts, got: {said}. Correct the options."
            raise UserError(message) from error
        started = [SlurmRun(job, slurm, self) for job, slurm in zip(jobs, submitted, strict=True)]
        self.runs += started
        self.remember({str(run.job.folder): run.slurm.job_id for run in started})
        return started

    def options(self) -> dict:
        """Return submitit's options for each run."""
        wanted = self.resources
        options = {"job_name": "promptlearn", "time": wanted.minutes, "cpus_per_task": wanted.cpus}
        options |= {"signal_delay_s": wanted.save_ahead, "additional_parameters": {"requeue": True, **wanted.sbatch}}
        options |= {"array_parallelism": wanted.parallel} if wanted.parallel else {}
        options |= {"partition": wanted.partition} if wanted.partition else {}
        options |= {"gpus_per_node": int(wanted.gpus)} if wanted.gpus else {}
        if wanted.memory:
            options["additional_parameters"]["mem"] = wanted.memory
        return options

    def look(self) -> None:
        """Update all runs, from the queue and from their files, every LOOK seconds."""
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + LOOK
        open_runs = [run for run in self.runs if run.status is None]
        there = queued([run.slurm.job_id for run in open_runs])
        for run in open_runs:
            run.update(run.slurm.job_id in there)

    def remember(self, ids: dict[str, str]) -> None:
        self.ids |= ids
        write_json(self.ids, self.memory)

    def forget(self, run: SlurmRun) -> None:
        """Forget a run that has ended, so that a failed one is submitted again by the next command."""
        if self.ids.get(str(run.job.folder)) == run.slurm.job_id:
            del self.ids[str(run.job.folder)]
            self.remember({})

    def close(self) -> None:
        """Do nothing: the runs are Slurm's."""


def submit_all(jobs: Sequence[Job], backend: SlurmBackend) -> int:
    """Submit all unfinished jobs that are not in the queue, each stage after the one it tests; return their number."""
    missing = [job for job in jobs if result_of(job) is None]
    run_of = {run.job: run for run in backend.adopt(missing)}
    left = [job for job in missing if job not in run_of]
    count = len(left)
    while left:
        ready = [job for job in left if job.source not in left]
        after = [run_of[job.source] for job in ready if job.source in run_of]
        run_of |= {run.job: run for run in backend.start(ready, after)}
        left = [job for job in left if job not in run_of]
    return count


def queued(ids: Sequence[str]) -> set[str]:
    """Return which of these jobs wait or run."""
    if not ids:
        return set()
    numbers = ",".join(sorted({job_id.partition("_")[0] for job_id in ids}))
    command = ["squeue", "--noheader", "--array", "--jobs", numbers, "--format", "%i"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER)
    except subprocess.TimeoutExpired:
        return set(ids)
    if listed.returncode and "Invalid job id" not in listed.stderr:
        return set(ids)  # Slurm does not answer now: nothing is known
    return set(listed.stdout.split()) & set(ids)


def scancel(*arguments: str) -> None:
    subprocess.run(["scancel", "--quiet", *arguments], capture_output=True)
