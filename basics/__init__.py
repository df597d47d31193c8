"""What all packages share: errors, file access, signals, and reading tensors without running code.

This is the lowest package: it imports none of the others, and only `basics.tensors` imports torch.
"""

from basics.console import Tolerant, drop, flush_or_drop, open_missing_streams
from basics.errors import (
    BadImage,
    MissingFile,
    NonFiniteLoss,
    NotApplicable,
    Reported,
    UserError,
    explain_missing_package,
    explain_os_error,
)
from basics.files import (
    cache_dir,
    keep_outside,
    mkdir_if_missing,
    read_json,
    sha256,
    sweep_litter,
    write_atomic,
    write_json,
)
from basics.hints import did_you_mean, known_spelling, similarity
from basics.locks import is_locked, lock_folder, open_regular
from basics.messages import Logger, above_bars, can_redraw, details, error_in, log, next_lines, notify, show_progress
from basics.stopping import (
    Stopped,
    StopSignals,
    for_this_process,
    leave_signals_to_parent,
    stop_without_parent,
)

__all__ = [
    "BadImage",
    "Logger",
    "MissingFile",
    "NonFiniteLoss",
    "NotApplicable",
    "StopSignals",
    "Stopped",
    "Tolerant",
    "Reported",
    "UserError",
    "above_bars",
    "cache_dir",
    "can_redraw",
    "details",
    "did_you_mean",
    "drop",
    "error_in",
    "explain_missing_package",
    "explain_os_error",
    "flush_or_drop",
    "for_this_process",
    "is_locked",
    "keep_outside",
    "known_spelling",
    "leave_signals_to_parent",
    "lock_folder",
    "log",
    "mkdir_if_missing",
    "next_lines",
    "notify",
    "open_missing_streams",
    "open_regular",
    "read_json",
    "sha256",
    "show_progress",
    "similarity",
    "stop_without_parent",
    "sweep_litter",
    "write_atomic",
    "write_json",
]
