"""Protocols as data: which runs a comparison needs, running those that are not done, and tables of their results.

Runs are subprocesses of the checkout's train.py and are known by the `results.json` that they leave; nothing here
imports a trainer, a data set or CLIP. The statistics (`statistics`, `statistics_text`) are imported by whoever needs
them: scipy takes its time.
"""

from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.discovery import discover, find_protocols, refuse_other_settings, result_of
from promptlearn.experiments.fairness import unfair
from promptlearn.experiments.launcher import launch
from promptlearn.experiments.planning import RunRequest, plan
from promptlearn.experiments.protocols import PROTOCOLS, Job, Protocol
from promptlearn.experiments.results_table import FORMATS, summarise, table, write_summary

__all__ = [
    "FORMATS",
    "PROTOCOLS",
    "RunRequest",
    "Checkout",
    "Job",
    "Protocol",
    "discover",
    "find_protocols",
    "launch",
    "plan",
    "refuse_other_settings",
    "result_of",
    "summarise",
    "table",
    "unfair",
    "write_summary",
]
