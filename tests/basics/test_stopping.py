"""A first stop signal waits for the current step; only Ctrl-C after it does not."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from basics import Stopped, StopSignals
from basics.stopping import STOP_SIGNALS

BOTH = pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@pytest.fixture(autouse=True)
def restored():
    """Restore the handlers: the tests may have been started with Ctrl-C ignored."""
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in STOP_SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@BOTH
def test_the_first_signal_is_recorded_and_ctrl_c_after_it_stops_at_once(capfd, signum, status):
    with StopSignals() as signals:
        signals.stop_if_requested("nowhere")
        os.kill(os.getpid(), signum)
        assert signals.requested == signum
        assert "finishing and saving this step first. Press Ctrl-C to stop at once." in capfd.readouterr().err
        with pytest.raises(Stopped, match="^stopped by SIG[A-Z]+ after epoch 2$") as stop:
            signals.stop_if_requested("after epoch 2")
        assert stop.value.status == status
        with pytest.raises(Stopped) as stop:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.value.status == 130
    assert signal.getsignal(signum) == signal.SIG_DFL


@BOTH
def test_the_first_signal_stops_if_not_patient(signum, status):
    with StopSignals(patient=False), pytest.raises(KeyboardInterrupt) as stop:
        os.kill(os.getpid(), signum)
    assert stop.value.status == status


def test_a_stop_that_is_passed_on_or_repeated_counts_once(capfd):
    others = [signum for signum in STOP_SIGNALS if signum != signal.SIGINT]
    with StopSignals(patient=False):
        with pytest.raises(Stopped, match="after epoch 2") as stop, StopSignals() as signals:
            for signum in others:
                os.kill(os.getpid(), signum)
            signals.stop_if_requested("after epoch 2")
        assert stop.value.status == 128 + others[0]
        for signum in others:  # while the status is written
            os.kill(os.getpid(), signum)
    assert capfd.readouterr().err.count("saving this step first") == 1


def test_ignored_signals_stay_ignored_and_other_threads_set_no_handler():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.requested is None

    def enter():
        with StopSignals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL]


CHILD = "import time; from basics import *; stop_without_parent(); print('ready', flush=True); time.sleep(60)"
PARENT = """
import os, subprocess, sys
from basics import for_this_process

child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | for_this_process(), stdout=sys.stdout)
print(child.pid, flush=True)
child.wait()
"""


def test_a_child_stops_after_its_parent_was_killed():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], **pipes) as parent:
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "ready\n"
        time.sleep(1.5)  # longer than the interval of its checks
        os.kill(child, 0)  # while the parent exists, it runs
        parent.kill()
        begin = time.monotonic()
        assert f"process {parent.pid}, which started this run, is gone" in parent.stderr.read()  # until the child exits
        assert time.monotonic() - begin < 30
