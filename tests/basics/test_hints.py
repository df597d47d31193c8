"""A misspelled name gets the name that was probably meant."""

from basics import did_you_mean

KNOWN = ["CoOp", "CoCoOp", "MaPLe", "RPO"]


def test_the_most_similar_name_is_suggested_whatever_its_case():
    assert did_you_mean("cocop", KNOWN) == " Did you mean 'CoCoOp'?"
    assert did_you_mean("rpo", KNOWN) == " Did you mean 'RPO'?"
    assert did_you_mean("coop", KNOWN, count=2) == " Did you mean 'CoOp' or 'CoCoOp'?"


def test_nothing_is_suggested_if_nothing_is_similar():
    assert did_you_mean("ResNet", KNOWN) == did_you_mean("", KNOWN) == did_you_mean("x", []) == ""
    assert did_you_mean("RPO" * 100_000, KNOWN) == ""
