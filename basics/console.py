"""Output to a console that may be closed."""

import os
import sys
from contextlib import suppress


def drop(stream):
    """Discard everything written to a console stream from now on: its reader is gone (`| head`, a closed terminal)."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())  # also discards its buffer, which Python would flush at exit
    os.close(null)


def notify(text):
    """Print a line to stderr, for progress and errors. A closed console is ignored."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
