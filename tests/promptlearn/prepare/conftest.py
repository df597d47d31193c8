"""A web server on loopback."""

import pytest
from loopback import Site

from promptlearn.prepare import download


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE", 0)
    site = Site()
    yield site
    site.close()
