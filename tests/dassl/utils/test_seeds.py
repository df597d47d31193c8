"""Seeds and streams."""

import random

import numpy as np
import torch

from dassl.utils import get_random_state, load_checkpoint, save_tensors, set_random_seed, set_random_state, stream


def draw():
    return random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))


def test_a_seed_fixes_all_three_generators():
    set_random_seed(0)
    first = draw()
    assert draw() != first
    set_random_seed(0)
    assert draw() == first
    set_random_seed(1)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_a_stream_is_a_function_of_its_arguments_alone():
    set_random_seed(1)
    numbers = torch.rand(3, generator=stream(1, "order", 0))
    torch.rand(5)
    assert torch.equal(torch.rand(3, generator=stream(1, "order", 0)), numbers)
    others = [stream(2, "order", 0), stream(1, "augmentation", 0), stream(1, "order", 1), stream(1, "order")]
    assert not any(torch.equal(torch.rand(3, generator=other), numbers) for other in others)


def test_keys_give_different_streams():
    seeds = {stream(*key).initial_seed() for key in ((1, "a", 11), (1, "a", 1, 1), (1, "a", "11"), (11, "a", 1))}
    assert len(seeds) == 4


def test_a_stream_leaves_the_global_generator_unchanged():
    before = torch.get_rng_state()
    torch.rand(3, generator=stream(1, "order"))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_state_of_all_generators_survives_a_file(tmp_path):
    set_random_seed(3)
    draw()
    save_tensors(get_random_state(), tmp_path / "state.pt")
    expected = draw()
    set_random_seed(4)
    set_random_state(load_checkpoint(tmp_path / "state.pt"))
    assert draw() == expected
