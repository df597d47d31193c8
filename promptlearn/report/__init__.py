"""`dassl report`: all that the runs below a folder show, as one HTML file that needs nothing else."""

from promptlearn.report.explanations import explain_missing, models
from promptlearn.report.page import page
from promptlearn.report.runs import Comparison

__all__ = ["Comparison", "explain_missing", "models", "page"]
