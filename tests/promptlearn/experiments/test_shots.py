import pytest

from basics import UserError
from promptlearn.experiments.shots import describe_shots, in_results, parse_shots, shots_options, shots_order


@pytest.mark.parametrize(
    ("given", "shots"),
    [("16", 16), (16, 16), ("all", "all"), ("10%", "10%"), ("10.0%", "10%"), ("2.5%", "2.5%"), ("100%", "all")],
)
def test_shots_are_a_number_a_percentage_or_all(given, shots):
    assert parse_shots(given) == shots


@pytest.mark.parametrize(
    "given", ["0", "-1", "al", "", "101%", "0%", "0.0%", "-5%", "%", "1.5", "1e3", "9" * 5000, True]
)
def test_other_shots_are_refused_with_what_is_expected(given):
    with pytest.raises(UserError, match='^--shots: expected training images per class .1 or more.*, or "all", got "'):
        parse_shots(given)


def test_numbers_come_first_then_percentages_then_all():
    assert sorted(["all", 16, "50%", "10%", 1, 200], key=shots_order) == [1, 16, 200, "10%", "50%", "all"]


def test_shots_are_described_in_words():
    described = [describe_shots(shots) for shots in (1, 16, "10%", "all")]
    assert described == ["1 shot", "16 shots", "10% of images", "all images"]


def test_the_settings_of_a_run_are_those_that_it_records():
    assert shots_options(16) == ["DATASET.NUM_SHOTS", "16"]
    assert shots_options("all") == ["DATASET.NUM_SHOTS", "-1"]
    assert shots_options("2.5%") == ["DATASET.NUM_SHOTS", "-1", "DATASET.TRAIN_FRACTION", "0.025"]
    assert in_results("7%")["train_fraction"] == float(shots_options("7%")[-1])
