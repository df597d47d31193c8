"""Calibration error, by hand, and the temperature that minimizes the negative log-likelihood."""

import pytest
import torch

from dassl.metrics import calibration_error, fit_temperature, measure_calibration, reliability


def overconfident(factor=4.0, n=4000):
    """Return logits that are `factor` times those that the labels were sampled from."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return factor * logits, labels


def test_the_error_is_the_mean_gap_of_the_bins():
    confidence = torch.tensor([0.62, 0.64, 0.97, 1.0])  # bins 10 and 15 of 15
    correct = torch.tensor([True, False, True, True])
    expected = (abs(0.62 + 0.64 - 1) + abs(0.97 + 1.0 - 2)) / 4
    assert calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-6)
    assert calibration_error(confidence[:0], correct[:0]) is None


def test_bins_contain_their_upper_edge():
    n, _, _ = reliability(torch.tensor([0.0, 0.5, 0.51, 1.0], dtype=torch.float64), torch.zeros(4), bins=2)
    assert n.tolist() == [2, 2]


@pytest.mark.parametrize("factor", [0.2, 1.0, 4.0])
def test_the_fitted_temperature_undoes_a_scale(factor):
    logits, labels = overconfident(factor)
    assert fit_temperature(logits, labels) == pytest.approx(factor, rel=0.05)
    assert fit_temperature(7 * logits, labels) == pytest.approx(7 * fit_temperature(logits, labels), rel=1e-6)


def test_no_other_temperature_has_a_lower_loss():
    logits, labels = overconfident()
    fitted = fit_temperature(logits, labels)
    least = measure_calibration(logits, labels, fitted)[0]
    others = (0.999 * fitted, 1.001 * fitted, 1.0, 10.0)
    assert all(measure_calibration(logits, labels, other)[0] > least for other in others)


def test_the_temperature_lowers_the_error_of_overconfident_logits():
    logits, labels = overconfident()
    before, after = (measure_calibration(logits, labels, t)[1] for t in (1.0, fit_temperature(logits, labels)))
    assert after < 0.05 < before


@pytest.mark.parametrize("sign", [1, -1])
def test_no_temperature_fits_predictions_that_are_all_right_or_all_wrong(sign):
    assert fit_temperature(sign * torch.eye(3), torch.arange(3)) is None
