"""LinearProbeCLIP is scikit-learn's logistic regression, with C searched as in CoOp's lpclip."""

import json

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from basics import NotApplicable, UserError
from trainers import linear_probe
from trainers.features import collect
from trainers.linear_probe import fit, search


def released_search(accuracy):
    """Follow CoOp's lpclip/linear_probe.py: coarse values, then eight steps; C of the last step's better side."""
    coarse = [10.0**e for e in (6, 4, 2, 0, -2, -4, -6)]
    accuracies = [accuracy(c) for c in coarse]
    peak = coarse[accuracies.index(max(accuracies))]
    left, right = 0.1 * peak, 10 * peak
    for _ in range(8):
        middle = (left * right) ** 0.5
        if accuracy(left) < accuracy(right):
            final, left = right, middle
        else:
            final, right = left, middle
    return final


@pytest.mark.parametrize("best", [-9.0, -3.21, 0.0, 1.3, 4.99, 8.0])
def test_c_is_searched_by_the_rules_of_the_released_code(best):
    def accuracy(exponent):
        return round(100 - 10 * abs(exponent - best))  # with ties, as counts of images have

    expected = released_search(lambda c: accuracy(torch.tensor(c).double().log10().item()))
    assert 10 ** search(accuracy) == pytest.approx(expected, rel=1e-6)


def test_of_equally_good_values_of_c_the_released_ones_are_kept():
    assert search(lambda exponent: 50.0) == 5.0  # the first coarse value is 10^6, and ties go to the left


@pytest.mark.parametrize("classes", [2, 3])
def test_a_fit_gives_the_probabilities_of_scikit_learn(classes):
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(30, 5, generator=generator), torch.arange(30) % classes
    weight, bias = fit(features, labels, 0.5)
    assert weight.shape == (classes, 5) and bias.shape == (classes,)
    regression = LogisticRegression(C=0.5, max_iter=1000).fit(features.numpy(), labels.numpy())
    expected = torch.from_numpy(regression.predict_proba(features.numpy())).float()
    torch.testing.assert_close(F.linear(features, weight, bias).softmax(dim=1), expected, atol=1e-4, rtol=0)


def test_the_head_gets_the_towers_features_without_normalization(make_trainer):
    trainer = make_trainer("LinearProbeCLIP")
    trainer.train()
    head, images = trainer.model.prompt_learner, next(iter(trainer.test_loader))["img"]
    with torch.no_grad():
        expected = F.linear(trainer.model.clip.encode_image(images), head.weight, head.bias)
        torch.testing.assert_close(trainer.model(images), expected)


def test_the_chosen_c_and_its_validation_accuracy_are_reported(make_trainer, tmp_path):
    trainer = make_trainer("LinearProbeCLIP")
    trainer.train()
    (row,) = trainer.record.rows
    assert row["val_accuracy"] == trainer.test(split="val")
    train, val = collect(trainer, trainer.train_loader_x), collect(trainer, trainer.val_loader)

    def accuracy(c):
        return (F.linear(val[0], *fit(*train, c)).argmax(dim=1) == val[1]).float().mean().item()

    assert row["C"] == pytest.approx(released_search(accuracy))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["epochs"] == 1
    assert results["trained_parameters"] == 5 * (trainer.model.prompt_learner.in_features + 1)


def test_a_run_that_is_stopped_in_its_search_restarts_to_the_same_head(make_trainer, monkeypatch):
    whole, stopped = make_trainer("LinearProbeCLIP", output="whole"), make_trainer("LinearProbeCLIP", output="stopped")
    whole.train()
    fits = []

    def fit_or_stop(*arguments):
        fits.append(arguments)
        if len(fits) == 3:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(linear_probe, "fit", fit_or_stop)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    again = make_trainer("LinearProbeCLIP", output="stopped")
    again.train()
    assert torch.equal(again.model.prompt_learner.weight, whole.model.prompt_learner.weight)


def test_other_classes_have_no_answer(make_trainer, tmp_path):
    make_trainer("LinearProbeCLIP", output="trained").train()
    other = make_trainer("LinearProbeCLIP", classnames=list("abcde"), output="other")
    with pytest.raises(NotApplicable, match="expected weights of the classes a, b, c, d, e, got those of cat"):
        other.evaluate(tmp_path / "trained")
    assert json.loads((tmp_path / "other" / "results.json").read_text())["status"] == "n/a"


def test_without_validation_images_or_a_second_class_nothing_is_fit(make_trainer):
    trainer = make_trainer("LinearProbeCLIP")
    trainer.val_loader = None
    with pytest.raises(UserError, match="DATASET.NAME: expected a dataset with validation images"):
        trainer.train()
    with pytest.raises(UserError, match="DATASET.NAME: expected two or more classes, got 1"):
        make_trainer("LinearProbeCLIP", classnames=["cat"], output="one").train()
