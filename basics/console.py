"""Output to a console that may be closed."""

import os
import sys


def open_missing_streams():
    """Give this process a stdin, stdout, and stderr if it was started without (cron, daemons, `>&-`): /dev/null.

    Otherwise the next file that is opened would take the place of the missing one.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


class Tolerant:
    """A console stream that a full disk does not disturb: the rest is discarded.

    Args:
        needs_reader: whether a missing reader raises BrokenPipeError; otherwise it is treated like a full disk.
    """

    def __init__(self, stream, needs_reader=True):
        self.stream = stream
        self.needs_reader = needs_reader

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        self._try(self.stream.write, text)
        return len(text)

    def flush(self):
        self._try(self.stream.flush)

    def _try(self, act, *arguments):
        try:
            act(*arguments)
        except OSError as error:
            if self.needs_reader and isinstance(error, BrokenPipeError):
                raise
            drop(self.stream)


def flush_or_drop(stream):
    """Flush a console stream. If that fails, discard its buffer, so that the exit status stays the command's own."""
    try:
        stream.flush()
    except OSError:
        drop(stream)


def drop(stream):
    """Discard everything written to a console stream from now on: its reader is gone (`| head`, a closed terminal)."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())  # also discards its buffer, which Python would flush at exit
    os.close(null)
