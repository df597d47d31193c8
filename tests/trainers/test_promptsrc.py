"""PromptSRC's average of the prompts over epochs."""

import json
from pathlib import Path

import pytest
import torch

from dassl.engine.averaging import gaussian_weights
from tests.methods import METHODS

FILE = Path(__file__).parents[1] / "data" / "further_values.json"
VALUES = next(case for case in json.loads(FILE.read_text()) if "gpa_released" in case)


class Crash(Exception):
    pass


@pytest.fixture
def make(make_trainer):
    settings = ["TRAINER.PROMPTSRC.GPA_MEAN", 2.0, "TRAINER.PROMPTSRC.GPA_STD", 1.0]
    return lambda output: make_trainer("PromptSRC", *METHODS["PromptSRC"], *settings, output=output)


def trained(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.prompt_learner.named_parameters()}


def watch(trainer, states, crash_after=None):
    """Record the prompts at the end of each epoch, before they are averaged."""
    plain = trainer.average.add

    def add(module, epoch):
        states.append(trained(trainer))
        plain(module, epoch)
        if epoch == crash_after:
            raise Crash

    trainer.average.add = add


@pytest.mark.parametrize("settings", VALUES["gpa_released"].values(), ids=VALUES["gpa_released"])
def test_the_weights_of_the_epochs_equal_the_released_code(settings):
    weights = gaussian_weights(settings["epochs"], settings["mean"], settings["std"])
    for epoch, expected in settings["weight_of_epoch"].items():
        assert weights[int(epoch) - 1] == pytest.approx(expected, rel=1e-4)


def test_the_trained_prompts_are_the_average_even_after_a_restart(make):
    whole, states = make("whole"), []
    watch(whole, states)
    whole.train()
    weights = gaussian_weights(3, 2.0, 1.0)
    for name, tensor in trained(whole).items():
        torch.testing.assert_close(tensor, sum(w * s[name] for w, s in zip(weights, states, strict=True)))
    broken = make("broken")
    watch(broken, [], crash_after=1)
    with pytest.raises(Crash):
        broken.train()
    resumed = make("broken")
    resumed.train()
    for name, tensor in trained(whole).items():
        assert torch.equal(trained(resumed)[name], tensor)
