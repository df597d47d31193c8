"""What a program says, and where: results by `print`, messages by `notify`, details of a run by `log`.

|          | console                                | log.txt of a run |
|----------|----------------------------------------|------------------|
| `print`  | stdout                                 | yes              |
| `notify` | stderr                                 | yes              |
| `log`    | stdout with --verbose, or without a log | yes              |

All of them write above an open progress bar (`show_progress`), never into it.
"""

import os
import shlex
import sys
import textwrap
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import TextIO

from basics.console import drop
from basics.errors import UserError, explain_os_error
from basics.files import mkdir_if_missing
from basics.locks import open_regular

SHORT = 2.0  # seconds; shorter work shows no bar
NESTED = 10.0  # seconds; the same below another bar, where a bar that comes and goes would flicker


class Logger:
    """Replace `sys.stdout`: write to the console and to a file, which is flushed after each line.

    The console gets whole lines. Attributes that it does not define (isatty, fileno, encoding, ...) are the console's.

    Args:
        fpath: the file; text is appended, so that a resumed run continues the log. None for the console only.
        verbose: whether the console also gets the details.

    Attributes:
        hidden: whether what is written goes to the file alone.
    """

    def __init__(self, fpath=None, verbose=True):
        self.console: TextIO = sys.stdout.console if isinstance(sys.stdout, Logger) else sys.stdout
        self.verbose = verbose
        self.hidden = False
        self.file: TextIO | None = None
        self._line = ""  # the start of a line that the console gets when it is complete
        if fpath is not None:
            mkdir_if_missing(os.path.dirname(fpath) or ".")
            handle = open_regular(fpath, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self.file, self.path = open(handle, "a", encoding="utf-8", buffering=1), fpath

    def __getattr__(self, name):
        return getattr(self.console, name)

    def write(self, text):
        self.record(text)
        if self.hidden:
            return len(text)
        lines, end, self._line = (self._line + text).rpartition("\n")
        if end:
            self._show(lines + end)
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def record(self, text):
        """Write to the file alone."""
        if self.file is not None:
            try:
                self.file.write(text)
            except OSError as error:
                self.close()
                raise explain_os_error(self.path, "a writable file", error) from error

    def flush(self):
        line, self._line = self._line, ""
        if line:
            self._show(line)
        self._on_console(self.console.flush)
        if self.file is not None:
            self.file.flush()

    def _show(self, text):
        with above_bars(self):
            self._on_console(self.console.write, text)

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


@contextmanager
def details():
    """Hide what is printed inside from the console, unless it is verbose, or a run has no log."""
    logger = sys.stdout
    if not isinstance(logger, Logger) or logger.verbose:
        yield
        return
    before, logger.hidden = logger.hidden, True
    try:
        yield
    finally:
        logger.hidden = before


def log(text):
    """Print a detail of a run."""
    with details():
        print(text)


def notify(text):
    """Print a message to stderr, and record it in the log of a run. A closed console and a full disk are ignored.

    A terminal gets long lines broken between words.
    """
    with suppress(OSError), above_bars(sys.stderr):
        print(fit(text, sys.stderr), file=sys.stderr, flush=True)
    if isinstance(sys.stdout, Logger):
        with suppress(UserError):
            sys.stdout.record(f"{text}\n")


def fit(text, stream):
    """Return a text with its long lines broken between words, if the stream is a terminal.

    Lines that are laid out stay: commands to be pasted, which are indented, and tables.
    """
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # not a terminal, or a stream without a file
        return text
    wrap = partial(textwrap.wrap, width=width, break_long_words=False, break_on_hyphens=False)
    lines = str(text).split("\n")
    is_prose = [len(line) > width > 0 and not line.startswith(" ") and "  " not in line for line in lines]
    return "\n".join("\n".join(wrap(line)) if long else line for line, long in zip(lines, is_prose, strict=True))


def error_in(stderr):
    """Return a program's error: its stderr (a string) without the messages before the line `error: ...`."""
    _, mark, message = f"\n{stderr}".partition("\nerror: ")
    return mark.lstrip() + message if mark else stderr


def next_lines(commands):
    """Return what to run next (lists of words), a command per line, to be pasted."""
    return "\n  ".join(["next:", *map(shlex.join, commands)])


def show_progress(items=None, name="", total=None, unit="it", delay=SHORT, **options):
    """Return a tqdm bar on stderr, over `items` if there are any. Unless stderr is a terminal, it shows nothing.

    Args:
        delay: seconds before it appears.
        options: further options of tqdm; by default, the bar disappears at its end.
    """
    from basics.bar import Bar  # not for commands that show no bar

    options = {"leave": False, "dynamic_ncols": True} | options
    if not can_redraw(sys.stderr):
        options["disable"] = True
    bar = Bar(items, desc=name, total=total, unit=unit, delay=delay, **options)
    if delay and bar.pos:
        bar.delay = NESTED
    return bar


def can_redraw(stream):
    """Return whether a stream is a terminal that can go back to the start of a line."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def above_bars(stream):
    """Return a context in which a line can be written to stdout or stderr. Open bars are drawn again below it."""
    tqdm = sys.modules.get("tqdm")  # without it, there is no bar
    return tqdm.tqdm.external_write_mode(file=stream) if tqdm else nullcontext()
