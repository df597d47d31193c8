"""Tip-Adapter: the cache holds the training images, and the search finds the best of the grid."""

import pytest
import torch
import torch.nn.functional as F

from dassl.engine.results import trained_parameters
from tests.methods import logits

SETTINGS = ("TRAINER.TIPADAPTER.SEARCH_STEP", [4, 3], "TRAINER.TIPADAPTER.AUGMENT_EPOCH", 2)


@pytest.fixture
def trained(make):
    trainer = make("TipAdapter", *SETTINGS)
    trainer.train()
    return trainer


def images_of(loader):
    batches = list(loader)
    return torch.cat([batch["img"] for batch in batches]), torch.cat([batch["label"] for batch in batches])


def test_the_keys_are_the_features_of_the_training_images(trained):
    images, labels = images_of(trained.train_loader_x)
    cache = trained.model.prompt_learner
    with torch.no_grad():
        torch.testing.assert_close(cache.keys, F.normalize(trained.model.clip.encode_image(images), dim=-1))
    assert torch.equal(cache.labels, labels)


def test_beta_and_alpha_are_the_most_accurate_on_the_validation_images(trained):
    model, cache = trained.model, trained.model.prompt_learner
    images, labels = images_of(trained.val_loader)
    accuracy = {}
    with torch.no_grad():
        for beta in (0.1 + i * (7 - 0.1) / 4 for i in range(4)):
            for alpha in (0.1 + i * (3 - 0.1) / 3 for i in range(3)):
                f = F.normalize(model.clip.encode_image(images), dim=-1)
                found = torch.exp(-beta * (1 - f @ cache.keys.t())) @ F.one_hot(cache.labels, 5).float()
                found = model.clip.logit_scale.exp() * f @ model.features.t() + alpha * found
                accuracy[beta, alpha] = (found.argmax(dim=1) == labels).float().mean()
    best = max(accuracy.values())
    expected = next(pair for pair, value in accuracy.items() if value == best)
    assert (cache.beta.item(), cache.alpha.item()) == pytest.approx(expected)


def test_only_tip_adapter_f_trains_the_keys(make):
    counts = {method: trained_parameters([make(method, *SETTINGS).model]) for method in ("TipAdapter", "TipAdapterF")}
    assert counts["TipAdapter"] == 0 < counts["TipAdapterF"]


def test_without_a_search_the_given_values_are_used(make, capsys):
    trainer = make("TipAdapter", "TRAINER.TIPADAPTER.SEARCH", False, "TRAINER.TIPADAPTER.ALPHA", 2.5)
    trainer.train()
    assert trainer.model.prompt_learner.alpha.item() == 2.5
    assert "alpha 2.5: not searched" in capsys.readouterr().out


def test_a_model_without_images_takes_over_the_keys_of_a_checkpoint(make, trained):
    fresh = make("TipAdapter", *SETTINGS, output="fresh")
    fresh.model.prompt_learner.resize({"adapter.weight": torch.zeros(0, trained.model.features.shape[1])})
    fresh.load_model(trained.output_dir)
    assert torch.equal(logits(fresh), logits(trained))
