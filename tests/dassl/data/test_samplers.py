"""The order of images is a function of (seed, epoch)."""

from collections import Counter

import pytest
import torch

from basics import UserError
from dassl.data.datasets import Datum
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


def images(*groups):
    """Images of (domain, label, how many)."""
    return [Datum(__file__, label, domain) for domain, label, count in groups for _ in range(count)]


def test_a_balanced_epoch_draws_every_class_equally_often():
    items = images((0, 0, 90), (0, 1, 9), (0, 2, 1))
    sampler = build_sampler("ClassBalancedSampler", items, seed=1)
    orders = [order(sampler, epoch) for epoch in range(30)]
    drawn = Counter(items[index].label for one in orders for index in one)
    assert all(len(one) == len(sampler) == 100 for one in orders) and len(set(map(tuple, orders))) == 30
    assert all(900 < count < 1100 for count in drawn.values()) and len(drawn) == 3


def batches(sampler, epoch, size):
    indices = order(sampler, epoch)
    assert len(indices) == len(sampler) and len(indices) % size == 0
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def test_each_batch_has_equally_many_images_of_random_domains_until_one_runs_out():
    items = images((0, 0, 10), (1, 0, 7), (2, 0, 12))
    sampler = build_sampler("RandomDomainSampler", items, seed=1, batch_size=4, n_domain=2)
    epochs = [batches(sampler, epoch, 4) for epoch in range(20)]
    for batch in sum(epochs, []):
        assert sorted(Counter(items[i].domain for i in batch).values()) == [2, 2]
    for epoch in epochs:
        used = Counter(index for batch in epoch for index in batch)
        assert set(used.values()) == {1}
        left = Counter(item.domain for index, item in enumerate(items) if index not in used)
        assert any(left[domain] < 2 for domain in range(3))
    assert {items[i].domain for batch in epochs[0] for i in batch} == {0, 1, 2}
    assert len({tuple(map(tuple, epoch)) for epoch in epochs}) == 20


def test_each_batch_has_images_of_all_domains_in_order():
    items = images((2, 0, 5), (0, 0, 9), (1, 0, 7))
    sampler = build_sampler("SeqDomainSampler", items, seed=1, batch_size=6)
    found = batches(sampler, 0, 6)
    assert [[items[i].domain for i in batch] for batch in found] == [[0, 0, 1, 1, 2, 2]] * 2
    assert batches(sampler, 1, 6) != found


def test_each_batch_has_n_images_of_random_classes_repeated_in_a_small_class():
    items = images((0, 0, 9), (0, 1, 6), (0, 2, 1), (0, 3, 6))
    sampler = build_sampler("RandomClassSampler", items, seed=1, batch_size=6, n_ins=3)
    for epoch in range(5):
        counts = [Counter(items[i].label for i in batch) for batch in batches(sampler, epoch, 6)]
        assert counts and all(sorted(count.values()) == [3, 3] for count in counts)
        used = Counter(index for _, index in sampler if items[index].label != 2)
        assert set(used.values()) == {1}


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("RandomDomainSampler", dict(batch_size=4, n_domain=3), "N_DOMAIN: expected at most the 2 domains"),
        ("RandomDomainSampler", dict(batch_size=5), "N_DOMAIN: expected 2 domains to divide a batch, got one of 5"),
        ("SeqDomainSampler", dict(batch_size=8), "BATCH_SIZE: expected 4 images of every domain for a batch, got 3"),
        ("RandomClassSampler", dict(batch_size=4, n_ins=3), "N_INS: expected a divisor of the batch size 4, got 3"),
        ("RandomClassSampler", dict(batch_size=4, n_ins=1), "N_INS: expected 4 classes for a batch of 4, got 2"),
        ("ClassSampler", dict(), "SAMPLER: expected one of RandomSampler, .*BalancedSampler, got 'ClassSampler'"),
    ],
)
def test_a_sampler_that_does_not_suit_the_images_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        build_sampler(name, images((0, 0, 3), (1, 1, 5)), seed=1, **options)


def test_samplers_have_the_names_of_the_config():
    assert list(build_sampler("SequentialSampler", range(4), seed=1)) == [0, 1, 2, 3]
    assert len(build_sampler("RandomSampler", range(4), seed=1)) == 4
