"""A run on a node of a cluster: train.py in a process of its own, as it runs locally."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time

from basics import for_this_process

POLL = 0.2  # seconds between looks at the process
STDERR = 20_000  # characters of its stderr that are kept


class TrainProcess:
    """A started train.py. It ends with this process, even if that is killed.

    Args:
        command: the program and its arguments.
        folder: where it starts.
        threads: of its computations.
    """

    def __init__(self, command: list[str], folder: str, threads: int):
        own = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", "TQDM_DISABLE": "1"}
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `wait`)
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # log.txt has the same lines
            stderr=self.stderr,
            env=os.environ | for_this_process() | own,
        )

    def wait(self) -> tuple[int, str]:
        """Return its exit status (negative for a signal) and the end of its stderr, which is also printed here."""
        while self.process.poll() is None:  # not `Popen.wait`, during which a signal handler must not wait, too
            time.sleep(POLL)
        with self.stderr:
            self.stderr.seek(0)
            text = self.stderr.read().decode(errors="replace")
        print(text, file=sys.stderr, end="")
        return self.process.returncode, text[-STDERR:]

    def save_and_end(self) -> None:
        """Let it save its state, and wait until it has ended; also in a signal handler."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.process.pid, signal.SIGTERM)
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
