"""The `dassl` command."""

import os

# Before torch is imported, as in train.py, which may run in this process: waiting threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from promptlearn.cli.main import main  # noqa: E402

__all__ = ["main"]
