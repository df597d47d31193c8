"""`dassl tune` tries settings on the validation images and tests the best ones."""

import pytest

from promptlearn.cli.main import main
from tests.fake_checkout import FakeCheckout

GRID = ["--vary", "OPTIM.LR", "0.01", "0.1", "1.0", "--vary", "TRAINER.RPO.K", "4", "8"]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    fake = FakeCheckout(tmp_path)
    monkeypatch.chdir(fake.root)
    return fake


def values(calls, key):
    return [call[call.index(key) + 1] for call in calls if key in call]


def test_a_grid_is_searched_on_validation_and_its_best_trial_tested_once(fake, capsys):
    assert main(["tune", "--trainer", "RPO", *GRID, "--shots", "4"]) == 0
    *trials, test = fake.calls()
    tried = set(zip(values(trials, "OPTIM.LR"), values(trials, "TRAINER.RPO.K"), strict=True))
    assert tried == {(lr, k) for lr in ("0.01", "0.1", "1.0") for k in ("4", "8")} and len(trials) == 6
    assert values(trials, "TEST.SPLIT") == ["val"] * 6
    assert "--eval-only" in test and "TEST.SPLIT" not in test and "LR=0.1," in values([test], "--model-dir")[0]
    shown = capsys.readouterr().out
    assert "best: LR=0.1,K=" in shown and shown.count("\n0.") == 4


def test_the_same_search_resumes_and_more_trials_continue_it(fake, capsys):
    fake.behave(fail=["LR=1"])
    search = ["tune", "--trainer", "RPO", "--vary", "OPTIM.LR", "0.01", "1.0", "0.1", "--shots", "4"]
    assert main(search) == 2
    assert "error: LR=1.0: expected a finished trial, got exit status 1." in capsys.readouterr().err
    assert len(fake.calls()) == 2
    fake.behave()
    assert main(search) == 0
    assert sorted(values(fake.calls()[:-1], "OPTIM.LR")) == ["0.1", "1.0"]
    assert main(search) == 0
    assert len(fake.calls()) == 1  # the test of the best one


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_range_is_searched_on_a_logarithmic_scale(fake, sampler):
    search = ["tune", "--trainer", "RPO", "--vary", "OPTIM.LR", "1e-4:1e-1", "--sampler", sampler, "--trials", "5"]
    assert main(search) == 0
    rates = [float(rate) for rate in values(fake.calls()[:-1], "OPTIM.LR")]
    assert len(rates) == 5 and all(1e-4 <= rate <= 1e-1 for rate in rates) and min(rates) < 0.03


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["OPTIM.LR"], "--vary OPTIM.LR: expected the values to try after the key, got none."),
        (["OPTIM.LR", "1:0.1"], "--vary OPTIM.LR: expected LOW:HIGH with 0 < LOW < HIGH, got 1:0.1."),
        (["OPTIM.LR", "a:b"], "--vary OPTIM.LR: expected LOW:HIGH, two numbers, got a:b."),
        (
            ["OPTIM.LR", "0.1:1"],
            "--sampler grid: expected values to choose from, got a range for OPTIM.LR. List the "
            "values, or choose another sampler.",
        ),
    ],
)
def test_an_impossible_search_is_refused(fake, capsys, vary, message):
    assert main(["tune", "--trainer", "RPO", "--vary", *vary]) == 2
    assert capsys.readouterr().err == f"error: {message}\n" and fake.calls() == []


@pytest.mark.parametrize(("shots", "fraction"), [("all", []), ("10%", ["0.1"])])
def test_a_search_may_use_all_images_or_a_percentage(fake, shots, fraction):
    assert main(["tune", "--trainer", "RPO", "--vary", "OPTIM.LR", "0.1", "--shots", shots]) == 0
    trial, test = fake.calls()
    assert f"/tune/digits/shots_{shots}/RPO/tiny/" in values([trial], "--output-dir")[0]
    for call in (trial, test):
        assert values([call], "DATASET.NUM_SHOTS") == ["-1"]
        assert values([call], "DATASET.TRAIN_FRACTION") == fraction


def test_names_that_do_not_exist_are_refused(fake, capsys):
    assert main(["tune", "--trainer", "RPO", *GRID, "--shots", "101%"]) == 2
    assert capsys.readouterr().err.count('or "all", got "101%".') == 1
    assert main(["tune", "--trainer", "RPOO", *GRID]) == 2
    assert main(["tune", "--trainer", "RPO", "--dataset", "digit", *GRID]) == 2
    assert main(["tune", "--trainer", "RPO", "--dataset", "oxford_pets", *GRID]) == 2
    assert capsys.readouterr().err.count("error: ") == 3 and fake.calls() == []
