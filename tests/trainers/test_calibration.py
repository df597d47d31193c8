"""A model keeps the temperature and the thresholds of its run, and uses them."""

import json

import pytest
import torch

from basics import UserError
from dassl.metrics.rejection import RULES
from promptlearn.classifier import PromptedClassifier

BOTH = ["TEST.CALIBRATE", True, "TEST.UNKNOWNS", True, "DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.MAX_EPOCH", 1]


@pytest.fixture
def run(make):
    trainer = make("RPO", *BOTH)
    trainer.train()
    return trainer


def results_of(trainer):
    with open(f"{trainer.output_dir}/results.json") as file:
        return json.load(file)


def test_a_saved_model_uses_the_temperature_of_its_run(run, tmp_path):
    fitted = results_of(run)["calibration"]
    PromptedClassifier.from_pretrained(run.output_dir, device="cpu").save_pretrained(tmp_path / "model")
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert saved["calibration"] == {key: fitted[key] for key in ("temperature", "thresholds")}
    classifier = PromptedClassifier.from_pretrained(tmp_path / "model", device="cpu")
    found = classifier.predict(list(torch.cat([batch["img"] for batch in run.test_loader])), top_k=5)
    expected = (found.logits / fitted["temperature"]).softmax(dim=1).sort(descending=True).values
    assert classifier.temperature == fitted["temperature"] != 1
    torch.testing.assert_close(found.probabilities, expected)


def test_pictures_below_the_threshold_are_rejected(run):
    classifier = PromptedClassifier.from_pretrained(run.output_dir, device="cpu")
    images = list(torch.cat([batch["img"] for batch in run.val_loader]))
    for rule, score in RULES.items():
        found = classifier.predict(images, reject=rule)
        torch.testing.assert_close(found.scores, score(found.logits.double(), classifier.temperature))
        assert torch.equal(found.rejected, found.scores < classifier.calibration.thresholds[rule])
        assert found.rejected.sum() <= 1  # of the 15 images that the threshold was fitted on
    with pytest.raises(UserError, match="reject: expected one of max_softmax, energy, got 'entropy'"):
        classifier.predict(images, reject="entropy")


def test_thresholds_hold_only_for_the_classes_of_the_training(run, tmp_path):
    classifier = PromptedClassifier.from_pretrained(run.output_dir, device="cpu")
    names, images = classifier.classnames, list(next(iter(run.val_loader))["img"])
    classifier.classnames = ["red fox", "owl"]
    found = classifier.predict(images)
    assert found.scores is None and found.rejected is None
    classifier.save_pretrained(tmp_path / "model")
    saved = PromptedClassifier.from_pretrained(tmp_path / "model", device="cpu")
    assert saved.calibration.thresholds == {} and saved.temperature == classifier.temperature != 1
    classifier.classnames = names
    assert classifier.predict(images).rejected is not None


@pytest.mark.parametrize("method", ["RPO", "CoOp"])  # on images, and on cached features
def test_calibration_does_not_depend_on_the_batch_size(make, method):
    found = []
    for batch in (7, 20):
        trainer = make(method, *BOTH, test_batch=batch, output=f"run{batch}")
        trainer.train()
        found.append(results_of(trainer))
    first, second = (each["calibration"] for each in found)
    assert first.pop("thresholds") == pytest.approx(second.pop("thresholds"), abs=1e-3)
    assert first == pytest.approx(second, abs=1e-2)
    assert found[0]["metrics"]["ece"] == pytest.approx(found[1]["metrics"]["ece"], abs=1e-2)


def test_unknown_images_that_equal_the_known_ones_cannot_be_told_apart(run):
    found = results_of(run)["unknowns"]  # the data of these tests are the same for all classes
    assert found["known"] == found["unknown"] == 20
    for rule in RULES:
        assert found[rule]["auroc"] == pytest.approx(50) and found[rule]["fpr95"] == pytest.approx(95)


def test_a_damaged_calibration_is_refused(run):
    results = results_of(run) | {"calibration": {"temperature": -1}}
    with open(f"{run.output_dir}/results.json", "w") as file:
        json.dump(results, file)
    with pytest.raises(UserError, match="expected the results of a run, got another content"):
        PromptedClassifier.from_pretrained(run.output_dir)
