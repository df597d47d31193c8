"""`dassl report`: the results of all runs in a folder, as one self-contained HTML file; `dassl figures`: its charts."""

from promptlearn.report.explanations import explain_missing, models
from promptlearn.report.page import charts_of, page
from promptlearn.report.runs import Comparison, find_comparisons

__all__ = ["Comparison", "charts_of", "explain_missing", "find_comparisons", "models", "page"]
