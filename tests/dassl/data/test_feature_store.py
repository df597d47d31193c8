"""A stored tensor is returned bit for bit, or not at all: damage, wrong names, full disks, and budgets."""

import os
import subprocess
import sys

import pytest
import torch

from basics import UserError
from dassl.data import feature_store
from dassl.data.feature_store import FeatureStore

KEY = {"weights": "ab12", "view": 3}


@pytest.fixture
def tensor():
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(0))


def test_a_tensor_is_returned_only_for_its_key(tmp_path, tensor):
    store = FeatureStore(tmp_path / "features", budget=2**20)
    assert store.get(KEY) is None
    store.put(KEY, tensor.t())  # not contiguous
    assert torch.equal(FeatureStore(tmp_path / "features", budget=0).get(dict(reversed(KEY.items()))), tensor.t())
    assert store.get({**KEY, "view": 4}) is None


def test_every_damaged_byte_and_length_is_detected(tmp_path, tensor, capsys):
    store = FeatureStore(tmp_path, budget=2**20)
    store.put(KEY, tensor)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        kept = store.get(KEY)
        assert kept is None or torch.equal(kept, tensor)  # padding of the header may be any white space
    for length in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert store.get(KEY) is None
    assert "is damaged; computing its content again" in capsys.readouterr().err


def test_a_file_under_the_wrong_name_is_detected(tmp_path, tensor):
    store = FeatureStore(tmp_path, budget=2**20)
    store.put(KEY, tensor)
    (path,) = tmp_path.iterdir()
    os.rename(path, store._path({"weights": "cd34", "view": 3}))
    assert store.get({"weights": "cd34", "view": 3}) is None


def test_beyond_the_budget_the_least_recently_used_are_deleted(tmp_path, tensor):
    store = FeatureStore(tmp_path, budget=2**20)
    for view in range(4):
        store.put({"view": view}, tensor)
        os.utime(store._path({"view": view}), (view, view))
    size = os.path.getsize(store._path({"view": 0}))
    assert store.get({"view": 0}) is not None  # used just now
    FeatureStore(tmp_path, budget=3 * size).put({"view": 4}, tensor)
    kept = [view for view in range(5) if store.get({"view": view}) is not None]
    assert kept == [0, 3, 4]
    FeatureStore(tmp_path, budget=size - 1).put({"view": 5}, tensor)  # too large by itself: nothing else is deleted
    assert len(os.listdir(tmp_path)) == 3


def test_a_full_disk_is_reported_and_the_run_continues(tmp_path, tensor, monkeypatch, capsys):
    def full(path, data):
        raise UserError(f'cannot write "{path}": No space left on device')

    monkeypatch.setattr(feature_store, "write_atomic", full)
    FeatureStore(tmp_path, budget=2**20).put(KEY, tensor)
    assert "Note: cannot store the image features. " in capsys.readouterr().err


STORE = """
import sys, torch
from pathlib import Path
from dassl.data.feature_store import FeatureStore
store = FeatureStore(Path(sys.argv[1]), budget=int(sys.argv[2]))
for i in range(60):
    store.put({"view": i % 7}, torch.full((100,), float(i % 7)))
    found = store.get({"view": (i + 3) % 7})
    assert found is None or found.eq((i + 3) % 7).all()
"""


@pytest.mark.slow
def test_several_processes_share_a_small_store(tmp_path):
    command = [sys.executable, "-c", STORE, str(tmp_path), "2500"]  # room for four
    together = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)
    ]
    assert [process.communicate()[0] for process in together] == [""] * 3
    assert [process.returncode for process in together] == [0] * 3
