"""Options of the training in the methods: each changes the loss or the images, or is refused."""

import types

import pytest
import torch

from basics import UserError
from dassl.utils import load_checkpoint
from trainers.base import PromptTrainer

MIXED = ["TRAIN.MIXUP", 0.4, "TRAIN.CUTMIX", 1.0]
METHODS = ("CoOp", "CoCoOp", "MaPLe", "SEP", "RPO", "LP")


@pytest.fixture
def prompts(make):
    """Return prompts(method, *opts, **options of make): the trained tensors after a run."""

    def train(method, *opts, **options):
        trainer = make(method, "OPTIM.MAX_EPOCH", 2, *opts, **options)
        trainer.train()
        return dict(trainer.model.prompt_learner.named_parameters())

    return train


def first_losses(trainer, **weights):
    """Return the loss of the first batch."""
    batch = next(iter(trainer.train_loader_x))
    images, labels = trainer.parse_batch_train(batch)
    return trainer.outputs(images, labels)[0].item()


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_of_every_method_follows_the_smoothing_of_labels(make, method):
    plain, smooth = make(method), make(method, "TRAIN.LABEL_SMOOTHING", 0.3, output="smooth")
    assert first_losses(plain) != first_losses(smooth)
    assert smooth.cross_entropy.used


@pytest.mark.parametrize("method", ["CoOp", "SEP"])
def test_the_weights_of_classes_are_those_of_the_training_images(make, monkeypatch, method):
    items = [types.SimpleNamespace(label=label) for label in (0, 0, 0, 1, 2, 3, 4)]
    original = PromptTrainer._class_weights

    def with_images(self):
        self.dm.dataset.train_x = items
        return original(self)

    monkeypatch.setattr(PromptTrainer, "_class_weights", with_images)
    weighted = make(method, "TRAIN.CLASS_WEIGHTS", "balanced")
    torch.testing.assert_close(weighted.cross_entropy.weights, torch.tensor([7 / 15, 1.4, 1.4, 1.4, 1.4]))
    assert first_losses(make(method, output="plain")) != first_losses(weighted)


@pytest.mark.parametrize("method", ["CoOp", "SEP", "RPO"])  # on cached features, with a loss of its own, on images
def test_mixed_images_train_other_prompts_the_same_way_each_time(prompts, method):
    plain, mixed = prompts(method, output="plain"), prompts(method, *MIXED, output="mixed")
    again = prompts(method, *MIXED, output="again")
    assert any(not torch.equal(plain[name], mixed[name]) for name in plain)
    assert all(torch.equal(mixed[name], again[name]) for name in mixed)


def test_mixing_does_not_depend_on_other_random_numbers(make):
    trainer = make("RPO", *MIXED)
    images, labels = torch.randn(4, 3, 24, 24), torch.tensor([0, 1, 2, 3])
    trainer.epoch, trainer.batch_idx = 1, 1
    mixed, targets = trainer.mix(images, labels)
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(trainer.mix(images, labels), (mixed, targets), strict=True))
    assert targets.shape == (4, 5)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    trainer.batch_idx = 2
    assert not torch.equal(trainer.mix(images, labels)[0], mixed)


def test_a_killed_run_with_all_options_ends_in_the_same_bytes(make, tmp_path):
    opts = [*MIXED, "TRAIN.LABEL_SMOOTHING", 0.1, "OPTIM.CLIP_NORM", 0.5, "TRAIN.CHECKPOINT_MINUTES", 1e-9]

    def checkpoint(folder):
        return load_checkpoint(tmp_path / folder / "prompt_learner" / "model.pth.tar-3")["state_dict"]

    make("RPO", *opts, output="whole").train()
    killed = make("RPO", *opts, output="killed")
    make_step = killed.forward_backward

    def die(batch):
        if (killed.epoch, killed.batch_idx) == (1, 1):
            raise KeyboardInterrupt
        return make_step(batch)

    killed.forward_backward = die
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    make("RPO", *opts, output="killed").train()
    whole, resumed = checkpoint("whole"), checkpoint("killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    "option", [["TRAIN.LABEL_SMOOTHING", 0.1], ["TRAIN.MIXUP", 0.1], ["OPTIM.CLIP_NORM", 1.0], ["OPTIM.ACCUMULATE", 2]]
)
def test_the_linear_probe_refuses_options_of_steps(make, option):
    with pytest.raises(UserError, match=f"{option[0]}: expected .* with LinearProbeCLIP, whose training does not use"):
        make("LinearProbeCLIP", *option)


def test_a_loss_that_ignores_an_option_is_refused_before_the_first_step(make, monkeypatch):
    trainer = make("LP", "TRAIN.LABEL_SMOOTHING", 0.1)
    before = trainer.model.prompt_learner.weight.clone()

    def own_loss(images, labels):
        logits = trainer.model(images)
        return torch.nn.functional.cross_entropy(logits, labels), logits

    monkeypatch.setattr(trainer, "loss", own_loss)
    with pytest.raises(UserError, match="whose loss does not use self.cross_entropy, got 0.1 and none"):
        trainer.train()
    assert torch.equal(trainer.model.prompt_learner.weight, before)
