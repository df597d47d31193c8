"""Scores of known and unknown images, and how well a threshold separates them."""

import pytest
import torch

from dassl.metrics.rejection import RULES, auroc, fit_threshold, measure_rejection


def test_the_auroc_is_the_share_of_pairs_in_the_right_order():
    known, unknown = torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([2.0, 0.0, 3.0])
    pairs = [(k > u) + 0.5 * (k == u) for k in known.tolist() for u in unknown.tolist()]
    assert auroc(known, unknown) == sum(pairs) / len(pairs)
    assert auroc(known, unknown) + auroc(unknown, known) == 1


def test_a_threshold_accepts_95_percent_and_no_more():
    scores = torch.randperm(100, generator=torch.Generator().manual_seed(0)).double()
    assert fit_threshold(scores) == 5  # 5 to 99 are accepted
    assert fit_threshold(scores[:1]) == scores[0]


def test_the_false_positive_rate_counts_accepted_unknown_images():
    measured = measure_rejection(torch.arange(100.0), torch.tensor([4.0, 5.0, -1.0, 200.0]))
    assert (measured["threshold"], measured["fpr95"]) == (5, 50)
    assert measured["auroc"] == pytest.approx(100 * (95.5 + 94.5 + 100 + 0) / 400)


def test_scores_follow_their_formulas():
    logits, t = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64), 2.0
    powers = (logits / t).exp()
    assert RULES["max_softmax"](logits, t).item() == pytest.approx((powers.max() / powers.sum()).item())
    assert RULES["energy"](logits, t).item() == pytest.approx(t * powers.sum().log().item())
    assert RULES["energy"](logits + 3, t).item() == pytest.approx(RULES["energy"](logits, t).item() + 3)
