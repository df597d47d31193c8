"""Ctrl-C, SIGTERM, a closed terminal, and the signals of batch systems: the current step is finished first."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

STARTED_BY = "DASSL_STARTED_BY"  # environment variable: the process id of the launcher, without which a run must stop
CHECK_INTERVAL = 1.0  # seconds between checks whether that process still exists
# Batch systems send SIGUSR1 or SIGXCPU ahead of the limit, the latter every second. SIGQUIT still aborts.
BATCH = [getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGXCPU") if hasattr(signal, name)]  # not on Windows
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *BATCH)


class Stopped(KeyboardInterrupt):
    """A signal requested this process to stop.

    Args:
        signum (int): the signal.
        where (str): the progress so far, such as "after epoch 3, batch 5".

    Attributes:
        status (int): the exit status by the convention of shells, 128 + the signal's number.
    """

    def __init__(self, signum, where=""):
        super().__init__(f"stopped by {signal.Signals(signum).name} {where}".rstrip())
        self.status = 128 + signum


class StopSignals:
    """A context in which a first stop signal is recorded in `requested`; after it, Ctrl-C raises Stopped at once.

    Other signals that follow are ignored: batch systems repeat theirs, and a run may receive one stop twice, from the
    system and from its launcher. The context may be inside another one, which then ignores them too.

    A signal that the process was started to ignore stays ignored. Outside the main thread, where Python does not
    receive signals, this does nothing.

    Args:
        patient (bool): False if the first signal, too, raises Stopped.
    """

    def __init__(self, patient=True):
        self.patient = patient
        self.requested = None  # the signal's number
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for signum in STOP_SIGNALS:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._before[signum] = signal.signal(signum, self._record)
        return self

    def __exit__(self, *exception):
        for signum, handler in self._before.items():
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, StopSignals) and outer.requested is None:
                outer.requested = self.requested
            signal.signal(signum, handler)
        self._before = {}

    def _record(self, signum, frame):
        repeated = self.requested is not None
        if repeated and signum != signal.SIGINT:
            return
        self.requested = self.requested or signum
        if repeated or not self.patient:
            raise Stopped(signum)
        _write(f"{signal.Signals(signum).name}: finishing and saving this step first. Press Ctrl-C to stop at once.")

    def stop_if_requested(self, where):
        """Raise Stopped if a signal was received. `where` is the progress so far, for the message."""
        if self.requested is not None:
            raise Stopped(self.requested, where)


def _write(text):
    # Not print(), which the signal may have interrupted. The console may be closed, if all processes got the signal.
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


def for_this_process():
    """Return environment variables that make a child process stop with this one (see `stop_without_parent`)."""
    return {STARTED_BY: str(os.getpid())}


def stop_without_parent():
    """Send SIGTERM to this process once the one that started it with `for_this_process` is gone, even after kill -9.

    Otherwise it would keep running unnoticed, and block the same command when it is run again.
    """
    parent = os.environ.get(STARTED_BY, "")
    if parent.isdigit():
        threading.Thread(target=_watch, args=[int(parent)], daemon=True).start()


def _watch(parent):
    while os.getppid() == parent:
        time.sleep(CHECK_INTERVAL)
    _write(f"process {parent}, which started this run, is gone")
    os.kill(os.getpid(), signal.SIGTERM)


def leave_signals_to_parent(worker_id=None):
    """Ignore the stop signals in a data worker: the run needs the current batch, and stops its workers itself."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    sys.excepthook = _unless_the_run_is_gone


def _unless_the_run_is_gone(kind, error, traceback):
    # multiprocessing's thread that hands memory over prints a traceback if the run ends during its handshake.
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, traceback)
