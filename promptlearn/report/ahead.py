"""Draws the charts of a page ahead, in several processes."""

import gc
import os
import signal
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process

from basics import show_progress
from dassl.utils import available_cores
from promptlearn.report.drawing import Chart

CHARTS_PER_PROCESS = 10  # fewer are drawn before a process has started
CHARTS_AT_ONCE = 4  # sent to a process

_charts: list[Chart] = []  # in a process that draws


def draw_all(charts: list[Chart]) -> None:
    """Draw the page's charts ahead, one process per core. What is not drawn here is drawn when the page needs it.

    Matplotlib takes 0.1 s and more for a chart, and a page has some 50 per dataset.
    """
    processes = min(available_cores(), len(charts) // CHARTS_PER_PROCESS)
    if processes < 2 or sys.platform != "linux":  # elsewhere, processes with open windows or threads cannot be forked
        return
    with warnings.catch_warnings():
        # No other thread of this process holds a lock that drawing needs.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        pool = ProcessPoolExecutor(processes, get_context("fork"), start_drawing, (charts,))
        drawn = pool.map(draw_one, range(len(charts)), chunksize=CHARTS_AT_ONCE)
    try:
        for chart, svg in zip(charts, show_progress(drawn, "drawing", len(charts), "chart"), strict=True):
            chart.__dict__["svg"] = svg
    except BrokenProcessPool:  # out of memory, for example
        pass
    finally:
        pool.shutdown(cancel_futures=True)


def start_drawing(charts: list[Chart]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the command ends the others
    threading.Thread(target=end_with_command, daemon=True).start()
    _charts[:] = charts
    # A figure is a thousand objects that refer to one another. Python would search for such garbage while it is drawn,
    # in the runs' results, too, which takes a seventh of the time.
    gc.freeze()
    gc.disable()


def end_with_command() -> None:
    """Wait until the process that started this one is gone, killed for example, and end, too."""
    command = parent_process()
    if command is not None:
        command.join()
        os._exit(1)


def draw_one(number: int) -> str:
    svg = _charts[number].svg
    gc.collect()
    return svg
