"""Accuracy of a batch."""

import torch

from dassl.metrics import compute_accuracy

LOGITS = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
LABELS = torch.tensor([0, 2, 2, 1])


def test_top_1_in_percent_is_the_default():
    (accuracy,) = compute_accuracy(LOGITS, LABELS)
    assert accuracy.shape == (1,)
    assert accuracy.item() == 50.0


def test_several_k_are_computed_at_once():
    assert [a.item() for a in compute_accuracy(LOGITS, LABELS, topk=(1, 2, 3))] == [50.0, 75.0, 100.0]


def test_the_first_of_several_outputs_holds_the_logits():
    assert compute_accuracy((LOGITS, None), LABELS)[0].item() == 50.0
