"""What TEST.CALIBRATE and TEST.UNKNOWNS add to results.json."""

import json
import sys

import pytest

from basics import UserError
from dassl.config import get_cfg_default
from dassl.engine import calibration
from tests.toy_runs import kill, results_of

CALIBRATE = ("TEST.CALIBRATE", "True")


def calibration_of(folder):
    return json.loads((folder / "results.json").read_text())["calibration"]


def test_calibration_is_off_by_default(make, tmp_path):
    assert not get_cfg_default().TEST.CALIBRATE
    make().train()
    assert calibration_of(tmp_path / "run") is None


def test_the_temperature_is_fitted_on_validation_images(make, tmp_path, capsys):
    make(*CALIBRATE, "SEED", "2", "OPTIM.MAX_EPOCH", "20").train()  # until it is overconfident
    found = calibration_of(tmp_path / "run")
    expected = "temperature n nll_before ece_before nll_after ece_after test_ece_after thresholds"
    assert list(found) == expected.split()
    assert found["n"] == 12 and found["nll_after"] < found["nll_before"]
    assert found["temperature"] > 1 and 0 <= found["test_ece_after"] <= 100
    assert set(found["thresholds"]) == {"max_softmax", "energy"}
    assert f"Temperature {found['temperature']:.3g}: ECE" in capsys.readouterr().out


def test_calibration_changes_nothing_else(make, tmp_path):
    make().train()
    make(*CALIBRATE, folder="calibrated").train()
    plain, calibrated = (results_of(tmp_path / folder) for folder in ("run", "calibrated"))
    assert calibrated.pop("calibration") and plain.pop("calibration") is None
    calibrated["config"]["TEST"]["CALIBRATE"] = False
    assert calibrated == plain


def test_a_resumed_run_has_the_same_calibration(make, tmp_path):
    make(*CALIBRATE).train()
    kill(make(*CALIBRATE, folder="killed"), 2, 1)
    make(*CALIBRATE, folder="killed").train()
    assert results_of(tmp_path / "killed") == results_of(tmp_path / "run")


def test_without_validation_images_nothing_is_fitted(make, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys.modules[make.__module__].FakeDataManager, "has_val", False)
    make(*CALIBRATE).train()
    assert calibration_of(tmp_path / "run") is None
    assert "no temperature was fitted, because the dataset has no validation images" in capsys.readouterr().err


def test_a_run_without_a_test_is_calibrated(make, tmp_path):
    make(*CALIBRATE, "TEST.NO_TEST", "True").train()
    found = calibration_of(tmp_path / "run")
    assert found["test_ece_after"] is None and found["temperature"] > 0


@pytest.mark.parametrize("subsample", ["base", "new"])
def test_unknown_classes_are_measured_for_models_of_base_classes(make, tmp_path, subsample):
    make("TEST.UNKNOWNS", "True", "DATASET.SUBSAMPLE_CLASSES", subsample).train()
    found = json.loads((tmp_path / "run" / "results.json").read_text())["unknowns"]
    if subsample == "new":
        assert found is None
        return
    assert (found["known"], found["unknown"]) == (20, 20)
    for rule in ("max_softmax", "energy"):
        assert set(found[rule]) == {"auroc", "fpr95", "threshold"}
        assert 0 <= found[rule]["auroc"] <= 100


def test_logits_that_do_not_fit_into_memory_are_refused_before_the_training(make, monkeypatch):
    monkeypatch.setattr(calibration, "free_memory", lambda device: 1000)
    make()
    with pytest.raises(UserError, match="TEST.CALIBRATE, TEST.UNKNOWNS: expected logits that fit into .* of .* images"):
        make(*CALIBRATE, folder="large")
