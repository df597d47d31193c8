"""Shared fixtures, the checkout's packages on the path, and which tests are skipped and why."""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a network, or fills a user's cache
sys.path.insert(0, str(Path(__file__).parent))  # plain_clip, reference, small_clip
sys.path.insert(0, str(Path(__file__).parent.parent))  # trainers, datasets: used from the checkout

import pytest  # noqa: E402
import torch.utils.data  # noqa: E402
from small_clip import make_small_clip  # noqa: E402

from basics.stopping import STOP_SIGNALS  # noqa: E402

# How long torch waits for a worker that ended in an error: 5 s for each.
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5

# Nothing here cuts the power, and a test would wait several milliseconds for each file. Processes of their own do wait.
os.fsync = lambda descriptor: None

# In the background of a script, or under nohup, a shell starts processes that ignore some of these.
for signum in STOP_SIGNALS:
    if signal.getsignal(signum) is signal.SIG_IGN:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)

SKIPPED = Counter()  # reason -> tests; a reason says what the tests need and, in parentheses, how to get it


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_configure(config):
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # other tests compare with numbers of a CPU


def pytest_collection_modifyitems(config, items):
    slow = pytest.mark.skip(reason="are slow (make test-slow)")
    gpu = pytest.mark.skip(reason="need a CUDA device (pytest -m gpu on a machine that has one)")
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(slow)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(gpu)


def pytest_runtest_logreport(report):
    if report.skipped and isinstance(report.longrepr, tuple):
        SKIPPED[report.longrepr[2].removeprefix("Skipped: ")] += 1


def pytest_unconfigure(config):
    if SKIPPED and not hasattr(config, "workerinput"):  # the workers of pytest-xdist report to the first process
        print("Skipped:", *(f"{count} {reason}." for reason, count in SKIPPED.most_common()))


@pytest.fixture(scope="session")
def small_clip():
    return make_small_clip()
