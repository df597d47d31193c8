"""The Hugging Face Hub, and its cache where the Hub does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager

ANSWER_WITHIN = 5.0  # seconds
UNREACHABLE = "the Hub is unreachable, and its cache has no such file"


def hub_answers() -> bool:
    """Return whether the Hub answers one short request.

    huggingface_hub repeats its own for a minute or more before it gives up.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWER_WITHIN)
    except Exception:  # depends on the HTTP library of huggingface_hub
        return False
    return True


@contextmanager
def cache_unless(answers: bool) -> Iterator[None]:
    """Let huggingface_hub look into its cache alone inside, unless the Hub answers."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not answers
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
