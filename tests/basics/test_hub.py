"""Where the Hugging Face Hub does not answer, nothing is requested again."""

import pytest

import clip
from basics import UserError
from basics.hub import hub_answers
from promptlearn.hub import download


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """Make the Hub an address where nothing answers, and refuse to wait for a second request."""
    constants = pytest.importorskip("huggingface_hub").constants

    def wait(_):
        raise AssertionError("waits for another request")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", wait)
    yield
    assert constants.HF_HUB_OFFLINE is False


def test_the_first_failure_is_final(no_hub):
    assert not hub_answers()
    with pytest.raises(UserError, match="The Hub cannot be reached, and its cache has no such file"):
        clip.load_clip("hf-hub:me/none")
    with pytest.raises(UserError, match="got neither .the Hub is unreachable, and its cache has no such file."):
        download("me/none")
    with pytest.raises(UserError, match="ViT-B-32/laion2b_e16: expected its weights from timm.*the Hub is unreachable"):
        clip.load_clip("open_clip:ViT-B-32/laion2b_e16")
