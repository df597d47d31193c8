"""The run log: everything that is printed also goes to a file."""

import os
import sys
from datetime import datetime

from basics import Logger, log

__all__ = ["Logger", "setup_logger"]


def setup_logger(output=None, verbose=True):
    """Write everything printed from now on to `output` as well.

    Args:
        output: a folder (the file is its `log.txt`) or a path that ends in .txt or .log. None does nothing.
        verbose: whether the console also gets what `basics.log` records.
    """
    if output is None:
        return
    output = str(output)
    path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    continued = os.path.exists(path)
    sys.stdout = Logger(path, verbose)
    if continued:
        log(f"Log continued at {datetime.now():%Y-%m-%d %H:%M:%S}")
