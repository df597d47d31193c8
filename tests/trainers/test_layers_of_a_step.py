"""A training step runs each layer once, and no layer below the first trained one whose input never changes."""

from collections import Counter

import pytest
import torch

from clip.towers import ResidualAttentionBlock

PLAIN = ("TRAINER.CLIPLORA.DROPOUT", 0.0)
# Method, settings, and how many segments run through each layer of the text and of the image tower in a step.
STEPS = {
    "MMRL": (
        "MMRL",
        ("TRAINER.MMRL.REP_LAYERS", [2]),
        [0, 1],
        [1, 3, 3],
    ),  # image; then image, its tokens, and frozen CLIP
    "MMA": ("MMA", ("TRAINER.MMA.ADAPTER_START", 2, "TRAINER.MMA.ADAPTER_END", 2), [0, 1], [1, 1, 1]),
    "CLIPLoRA": ("CLIPLoRA", PLAIN, [2, 1], [1, 1, 1]),
    "CLIPLoRA of the image tower": ("CLIPLoRA", ("TRAINER.CLIPLORA.ENCODER", "vision", *PLAIN), [0, 0], [1, 1, 1]),
    "PLOT++ of the image tower": ("PLOTPP", ("TRAINER.PLOTPP.MODEL_UPD", "vision"), [0, 0], [2, 2, 1]),
}


@pytest.fixture
def updates(monkeypatch):
    """Count the calls of each layer, by the identity of its module."""
    calls, update = Counter(), ResidualAttentionBlock.update

    def count(block, *args):
        calls[id(block)] += 1
        return update(block, *args)

    monkeypatch.setattr(ResidualAttentionBlock, "update", count)
    return calls


@pytest.mark.parametrize("case", STEPS)
def test_a_step_runs_only_the_layers_it_needs(make, updates, case):
    method, settings, *expected = STEPS[case]
    trainer = make(method, *settings)
    trainer.before_train()
    updates.clear()
    trainer.outputs(torch.randn(2, 3, 24, 24), torch.tensor([0, 1]))
    clip_model = trainer.model.clip
    towers = clip_model.transformer, clip_model.visual.transformer
    assert [[updates[id(block)] for block in tower.blocks] for tower in towers] == expected


def test_updates_of_the_text_tower_alone_train_on_cached_image_features(make, updates):
    trainer = make("CLIPLoRA", "TRAINER.CLIPLORA.ENCODER", "text", *PLAIN)
    assert trainer.model.frozen_image_encoder
    images, labels = torch.randn(2, 3, 24, 24), torch.tensor([0, 1])
    loss, *_ = trainer.outputs(images, labels)
    updates.clear()
    from_features, *_ = trainer.outputs(trainer.frozen_features(images), labels)
    assert from_features.item() == loss.item()
