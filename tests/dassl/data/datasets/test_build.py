"""Data sets by name."""

import pytest

from basics import UserError
from dassl.data.datasets import build_dataset


def test_a_registered_data_set_is_built(cfg):
    assert build_dataset(cfg).classnames == ["ant", "bee", "cat"]


def test_an_unknown_data_set_is_answered_with_the_list(cfg):
    cfg.DATASET.NAME = "Smal"
    with pytest.raises(UserError, match=r'"Smal"[.] Did you mean "Small"[?]'):
        build_dataset(cfg)
