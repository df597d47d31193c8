"""The order of images is a function of (seed, epoch)."""

import pytest
import torch

from basics import UserError
from dassl.data.samplers import RandomSampler, build_sampler


def order(sampler, epoch):
    sampler.set_epoch(epoch)
    pairs = list(sampler)
    assert {first for first, _ in pairs} == {epoch}
    return [index for _, index in pairs]


def test_each_epoch_and_seed_has_its_own_order_of_all_images():
    orders = [order(RandomSampler(range(20), seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(one) == list(range(20)) for one in orders)
    assert len(set(map(tuple, orders))) == 4


def test_an_epoch_depends_on_neither_earlier_ones_nor_global_state():
    whole = RandomSampler(range(20), seed=1)
    orders = [order(whole, epoch) for epoch in range(3)]
    torch.rand(5)
    assert order(RandomSampler(range(20), seed=1), 2) == orders[2]


def test_samplers_have_the_names_of_the_config():
    assert list(build_sampler("SequentialSampler", range(4), seed=1)) == [0, 1, 2, 3]
    assert len(build_sampler("RandomSampler", range(4), seed=1)) == 4
    with pytest.raises(UserError, match="RandomSampler or SequentialSampler, got 'RandomClassSampler'"):
        build_sampler("RandomClassSampler", range(4), seed=1)
