"""Datasets by name."""

import pytest

from basics import UserError
from dassl.data.datasets import build_dataset


def test_a_registered_dataset_is_built(cfg):
    assert build_dataset(cfg).classnames == ["ant", "bee", "cat"]


def test_an_unknown_dataset_lists_the_registered_ones(cfg):
    cfg.DATASET.NAME = "Smal"
    with pytest.raises(UserError, match=r'"Smal"[.] Did you mean "Small"[?]'):
        build_dataset(cfg)
