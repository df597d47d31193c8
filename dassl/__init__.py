"""A training engine for few-shot prompt learning, with Dassl's interface."""

__version__ = "0.1.0"
