"""The run log: everything that is printed also goes to a file."""

import os
import sys
from contextlib import suppress
from datetime import datetime
from typing import TextIO

from basics import drop, explain_os_error, mkdir_if_missing, open_regular


class Logger:
    """Replace `sys.stdout`: write to the console and to a file, which is flushed after each line.

    Attributes that it does not define (isatty, fileno, encoding, ...) are the console's.

    Args:
        fpath: the file; text is appended, so that a resumed run continues the log. None for the console only.
    """

    def __init__(self, fpath=None):
        self.console: TextIO = sys.stdout.console if isinstance(sys.stdout, Logger) else sys.stdout
        self.file: TextIO | None = None
        if fpath is not None:
            mkdir_if_missing(os.path.dirname(fpath) or ".")
            handle = open_regular(fpath, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self.file, self.path = open(handle, "a", encoding="utf-8", buffering=1), fpath

    def __getattr__(self, name):
        return getattr(self.console, name)

    def write(self, text):
        if self.file is not None:
            try:
                self.file.write(text)
            except OSError as error:
                self.close()
                raise explain_os_error(self.path, "a writable file", error) from error
        self._on_console(self.console.write, text)
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        self._on_console(self.console.flush)
        if self.file is not None:
            self.file.flush()

    def _on_console(self, act, *arguments):
        try:
            act(*arguments)
        except OSError:
            if self.file is None:
                raise
            drop(self.console)  # a run survives its terminal, and the `tee` that Ctrl-C ended first

    def close(self):
        """Close the file; the console stays open."""
        file, self.file = self.file, None
        if file is not None:
            with suppress(OSError):  # closing retries what could not be written, which was already reported
                file.close()


def setup_logger(output=None):
    """Write everything printed from now on to `output` as well.

    Args:
        output: a folder (the file is its `log.txt`) or a path that ends in .txt or .log. None does nothing.
    """
    if output is None:
        return
    output = str(output)
    path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    continued = os.path.exists(path)
    sys.stdout = Logger(path)
    if continued:
        print(f"Log continued at {datetime.now():%Y-%m-%d %H:%M:%S}")
