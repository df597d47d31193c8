"""`dassl report`: the results of all runs in a folder, as one self-contained HTML file."""

from promptlearn.report.explanations import explain_missing, models
from promptlearn.report.page import page
from promptlearn.report.runs import Comparison

__all__ = ["Comparison", "explain_missing", "models", "page"]
