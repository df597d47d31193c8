"""Protocols as data: plan the runs of a comparison, run the unfinished ones, and tabulate their results.

Runs are subprocesses of the checkout's train.py, identified by the `results.json` that they write. Nothing here imports
a trainer, a dataset or CLIP. Import the statistics (`significance`, `significance_text`) only where they are needed:
scipy is slow to import.
"""

from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.discovery import discover, refuse_other_settings, result_of
from promptlearn.experiments.fairness import unfair
from promptlearn.experiments.found_runs import find_runs
from promptlearn.experiments.launcher import launch
from promptlearn.experiments.planning import RunRequest, explain_configs, plan
from promptlearn.experiments.protocols import PROTOCOLS, Job, Protocol
from promptlearn.experiments.results_table import FORMATS, summarize, table, write_summary

__all__ = [
    "FORMATS",
    "PROTOCOLS",
    "RunRequest",
    "Checkout",
    "Job",
    "Protocol",
    "discover",
    "explain_configs",
    "find_runs",
    "launch",
    "plan",
    "refuse_other_settings",
    "result_of",
    "summarize",
    "table",
    "unfair",
    "write_summary",
]
