"""Shared fixtures, and the checkout's rooms on the path."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parent))  # plain_clip, reference, small_clip
sys.path.insert(0, str(Path(__file__).parent.parent))  # trainers, datasets: used from the checkout

import pytest  # noqa: E402
import torch.utils.data  # noqa: E402
from small_clip import make_small_clip  # noqa: E402

# How long torch waits for a worker that ended in an error: 5 s for each.
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5


@pytest.fixture(scope="session")
def small_clip():
    return make_small_clip()
