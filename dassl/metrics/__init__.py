"""Metrics of a model's predictions."""

from dassl.metrics.accuracy import compute_accuracy
from dassl.metrics.calibration import calibration_error, fit_temperature, measure_calibration, reliability

__all__ = ["calibration_error", "compute_accuracy", "fit_temperature", "measure_calibration", "reliability"]
