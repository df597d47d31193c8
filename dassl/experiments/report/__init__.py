"""`dassl report`: all that the runs below a folder show, as one HTML file that needs nothing else."""

from dassl.experiments.report.explained import explain_missing, models
from dassl.experiments.report.page import page
from dassl.experiments.report.runs import Comparison

__all__ = ["Comparison", "explain_missing", "models", "page"]
