"""The config of a dataset in a temporary DATA folder, and small trees of files."""

import pytest

import datasets  # noqa: F401  (registers)
from dassl.config import get_cfg_default


@pytest.fixture
def cfg(tmp_path, tmp_path_factory, monkeypatch):
    """Seed 1, all classes, no shots; DATASET.ROOT is the test's temporary folder."""
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path_factory.mktemp("cache")))
    cfg = get_cfg_default()
    cfg.SEED = 1
    cfg.VERBOSE = False
    cfg.DATASET.ROOT = str(tmp_path)
    return cfg


@pytest.fixture
def put():
    """Return put(folder, names), which creates empty files, last name first, so that a listing is not sorted."""

    def make(folder, names):
        for name in reversed(list(names)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()

    return make
