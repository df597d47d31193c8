"""Last words on a console that may be gone."""

import os
import sys
from contextlib import suppress


def drop(stream):
    """From now on nothing is written to a console stream: whoever read it is gone (`| head`, a closed terminal)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())  # also what is still in its buffer, which Python would try again at the end
    os.close(nowhere)


def notify(text):
    """Print a line to stderr, where progress notes and errors go; a closed console is ignored."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
