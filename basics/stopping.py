"""Ctrl-C and SIGTERM: what is under way is finished first."""

import os
import signal
import threading
import time
from contextlib import suppress

STARTED_BY = "DASSL_STARTED_BY"  # environment: the process without which a run has nobody to run for
LOOK = 1.0  # seconds between looks whether that process is still there
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Args:
        signum: the signal.
        where: how far things had come, such as "after epoch 3, batch 5".

    Attributes:
        status: the exit status that shells give such an end, 128 + the signal's number.
    """

    def __init__(self, signum, where=""):
        super().__init__(f"stopped by {signal.Signals(signum).name} {where}".rstrip())
        self.status = 128 + signum


class StopSignals:
    """A context in which a first Ctrl-C or SIGTERM is only noted, in `asked`, and a second one raises Stopped at once.

    Args:
        patient: False: the first one raises Stopped, too.

    A signal that the process was started to ignore stays ignored. Outside the main thread, where Python cannot take
    signals, this does nothing.
    """

    def __init__(self, patient=True):
        self.patient = patient
        self.asked = None  # the signal's number
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for signum in STOP_SIGNALS:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception):
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def _note(self, signum, frame):
        if not self.patient or self.asked is not None:
            raise Stopped(signum)
        self.asked = signum
        _say(f"{signal.Signals(signum).name}: this step is finished and saved first; once more stops at once")

    def stop_if_asked(self, where):
        """Raise Stopped if a signal came. `where`: how far things have come, for the message."""
        if self.asked is not None:
            raise Stopped(self.asked, where)


def _say(text):
    # Not print(): a signal may come in the middle of one. Nobody may be there to read it, if the signal went to all.
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


def for_this_process():
    """Environment variables that have a child process end with this one (see `stop_without_parent`)."""
    return {STARTED_BY: str(os.getpid())}


def stop_without_parent():
    """Have SIGTERM come to this process once the one that started it by `for_this_process` is gone, even by kill -9.

    Without that nobody would see it any more, and it would stand in the way of the same command given again.
    """
    parent = os.environ.get(STARTED_BY, "")
    if parent.isdigit():
        threading.Thread(target=_watch, args=[int(parent)], daemon=True).start()


def _watch(parent):
    while os.getppid() == parent:
        time.sleep(LOOK)
    _say(f"process {parent}, which started this run, is gone")
    os.kill(os.getpid(), signal.SIGTERM)


def leave_signals_to_parent(worker_id=None):
    """In a data worker: ignore what asks the run to end; it needs the batch under way, and ends its workers itself."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
