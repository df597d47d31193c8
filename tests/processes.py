"""Runs of train.py in processes of their own, to be killed: forked from one that has imported everything already."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Reads {"arguments", "log", "file_limit", "unprivileged"} a line and answers with the child's process id. A child's
# exit status, or the signal that ended it (negative), is requested with {"wait": pid}. It computes nothing itself: the
# threads of that would not survive the fork.
SERVER = """
import ctypes, json, os, resource, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job passes on that it is ignored
sys.path.insert(0, os.getcwd())
import torch
import torchvision, sklearn.metrics, scipy.stats  # what a run imports later
import train

def child(arguments, log, file_limit, unprivileged):
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    os.setpgid(0, 0)  # so that a signal can be sent to the data workers too
    torch.set_num_threads(1)
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if unprivileged:  # root gives up its capabilities, and permissions hold for it too
        ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
    try:
        status = train.main(arguments)
    except SystemExit as end:
        status = end.code
    except BaseException:
        import traceback
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)

for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
    else:
        answer = os.fork()
        if answer == 0:
            child(**request)
    print(answer, flush=True)
"""


class Runs:
    """Starts runs of train.py."""

    def __init__(self, cache):
        environment = os.environ | {"DASSL_CACHE": str(cache), "TQDM_DISABLE": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, **request):
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def start(self, folder, arguments, file_limit=None, unprivileged=False):
        """Start a run with its output in `folder`; what it prints is added to the file `folder`.out.

        Args:
            file_limit: bytes that a file may hold, as if the disk were full beyond them.
            unprivileged: have permissions hold, even if root runs the tests.
        """
        log, arguments = Path(f"{folder}.out"), ["--verbose", "--output-dir", str(folder), *arguments]
        before = log.stat().st_size if log.is_file() else 0
        pid = self._ask(arguments=arguments, log=str(log), file_limit=file_limit, unprivileged=unprivileged)
        return Run(self, pid, log, before)

    def close(self):
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()


class Run:
    """A run that was started."""

    def __init__(self, runs, pid, log, printed_before):
        self.runs, self.pid, self.log, self.printed_before = runs, pid, log, printed_before

    def wait(self):
        """Return its exit status; negative: the signal that ended it."""
        return self.runs._ask(wait=self.pid)

    def ended(self):
        """Return whether it has ended; it is still there for `wait`."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def kill(self, signum=signal.SIGKILL, workers=False):
        """Send a signal, and to its data workers if requested."""
        (os.killpg if workers else os.kill)(self.pid, signum)

    def until(self, condition, seconds=60):
        """Wait for `condition()`."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert not self.ended() and time.monotonic() < deadline, f"waited in vain; it printed:\n{self.text()}"
            time.sleep(0.002)

    def text(self):
        """Return what it has printed."""
        return self.log.read_bytes()[self.printed_before :].decode() if self.log.is_file() else ""
