"""Runs of train.py that are forked from a warm process, which has imported everything once.

Importing torch takes seconds, and a comparison has hundreds of short runs. Each run is still a process of its own, in
the state of a freshly started one: the warm process computes nothing, starts no thread, and touches no GPU.

    launcher  --({"arguments": [...], "stdout": path, "stderr": path, "environment": {...}})-->  warm process
    warm process  --fork-->  run, run, ...
    launcher  <--({"started": pid}, {"ended": pid, "status": s})--

`python warm.py FD CHECKOUT` is the warm process; it answers on the file descriptor FD, and ends with its standard
input. It imports nothing of this package, only of the checkout, which may be another version.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

POLL = 0.02  # seconds between checks for ended runs
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)  # as in basics/stopping.py
# What a run imports. Nothing of it starts a thread that outlives a fork, or touches a GPU.
IMPORTED = ("torchvision", "open_clip", "dassl.engine", "datasets", "trainers.explain")


class WarmProcess:
    """Starts the warm process, and runs from it.

    Args:
        root: the checkout.
        folder: the current folder of all runs.
        environment: of the warm process and of all runs.
    """

    def __init__(self, root: Path, folder: Path, environment: dict[str, str]):
        answers, theirs = os.pipe()
        command = [sys.executable, os.path.abspath(__file__), str(theirs), str(root)]
        self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, env=environment, pass_fds=[theirs])
        os.close(theirs)
        self._answers = open(answers, "rb", buffering=0)  # noqa: SIM115  (closed in `close`)
        self._rest = b""
        self._started: list[int] = []
        self.ended: dict[int, int] = {}  # process id -> exit status, negative for a signal

    def start(
        self, arguments: list[str], stdout: str | None, stderr: str | None, environment: dict[str, str] | None = None
    ) -> "ForkedRun":
        """Start a run of `train.py` with these arguments.

        Args:
            stdout, stderr: files for its output; None: that of this process.
            environment: what its environment has besides that of the warm process.

        Raises:
            OSError: the warm process is gone.
        """
        assert self.process.stdin is not None
        request = {"arguments": arguments, "stdout": stdout, "stderr": stderr, "environment": environment or {}}
        self.process.stdin.write((json.dumps(request) + "\n").encode())
        self.process.stdin.flush()
        while not self._started:
            self.read(timeout=1.0)
        return ForkedRun(self, self._started.pop(0))

    def read(self, timeout: float = 0.0) -> None:
        """Read what the warm process has answered.

        Raises:
            OSError: it is gone.
        """
        while select.select([self._answers], [], [], timeout)[0]:
            data = self._answers.read(2**16)
            if not data:
                raise ConnectionError("the process that forks the runs has ended")
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in map(json.loads, lines):
                if "started" in line:
                    self._started.append(line["started"])
                else:
                    self.ended[line["ended"]] = line["status"]
            timeout = 0.0

    def close(self) -> None:
        """End the warm process; its runs have ended."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self._answers.close()


class ForkedRun:
    """A run, with the methods of `subprocess.Popen` that the launcher needs."""

    def __init__(self, warm: WarmProcess, pid: int):
        self.warm, self.pid = warm, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                self.warm.read()
            except OSError:  # the warm process was killed: the run stops by itself, and its exit status is lost
                if not is_alive(self.pid):
                    self.warm.ended.setdefault(self.pid, 128 + signal.SIGTERM)
            self.returncode = self.warm.ended.pop(self.pid, None)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("train.py", timeout or 0)
            time.sleep(POLL)
        return status

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def is_possible(root: Path) -> bool:
    """Return whether runs of this checkout can be forked: on Linux only, that is safe after torch was imported."""
    return sys.platform == "linux" and (root / "trainers").is_dir()


def is_alive(pid: int) -> bool:
    """Return whether a process that need not be a child of this one still runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def serve(answers: int, root: str) -> None:
    """Run the warm process: import everything, then fork a run for each request."""
    # Stop signals may go to the whole group: the runs handle them, and this process ends with its standard input.
    handlers = {signum: signal.signal(signum, signal.SIG_IGN) for signum in IGNORED}
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported, as in train.py
    sys.path[0] = root
    for module in IMPORTED:
        with contextlib.suppress(ImportError):  # a run will report it
            importlib.import_module(module)
    from basics import for_this_process

    os.environ |= for_this_process()
    gc.freeze()  # collections in the runs leave the shared pages alone
    runs: set[int] = set()
    requests, rest = sys.stdin.buffer.fileno(), b""
    while True:
        if select.select([requests], [], [], POLL if runs else None)[0]:
            data = os.read(requests, 2**16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                signal.pthread_sigmask(signal.SIG_BLOCK, handlers)  # a signal to the run waits for its handlers
                pid = os.fork()
                if pid == 0:
                    os.close(answers)
                    for signum, handler in handlers.items():
                        signal.signal(signum, handler)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
                if pid == 0:
                    _run(root, **json.loads(line))
                runs.add(pid)
                _answer(answers, started=pid)
        _report_ended(runs, answers)
    for pid in runs:  # the launcher was killed
        os.kill(pid, signal.SIGTERM)
    while runs:
        _report_ended(runs, answers)
        time.sleep(POLL)
    os._exit(0)  # a normal exit takes a second, and would report frozen objects as leaks


def _report_ended(runs: set[int], answers: int) -> None:
    for pid in list(runs):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            runs.remove(pid)
            _answer(answers, ended=pid, status=os.waitstatus_to_exitcode(status))


def _answer(answers: int, **content: int) -> None:
    with contextlib.suppress(OSError):  # the launcher was killed
        os.write(answers, (json.dumps(content) + "\n").encode())


def _run(root: str, arguments: list[str], stdout: str | None, stderr: str | None, environment: dict[str, str]) -> None:
    """Do in the forked process what `python train.py ARGUMENTS` does."""
    os.environ |= environment
    for path, number, flags in (
        (os.devnull, 0, os.O_RDONLY),
        (stdout, 1, os.O_WRONLY | os.O_APPEND),
        (stderr, 2, os.O_WRONLY | os.O_APPEND),
    ):
        if path is not None:
            file = os.open(path, flags)
            os.dup2(file, number)
            os.close(file)
    script = os.path.join(root, "train.py")
    sys.argv = [script, *arguments]
    status = _status_of(lambda: runpy.run_path(script, run_name="__main__"))
    # A normal exit would tear down all shared modules, which takes a second.
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _status_of(script: Callable[[], object]) -> int:
    """Run a script and return the exit status that Python would end with."""
    try:
        script()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
