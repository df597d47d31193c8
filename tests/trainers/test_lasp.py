"""LASP's LayerNorms and extra classes."""

import copy

import pytest
import torch
from original_files import whole_state_dict, write_original

from tests.methods import logits
from trainers.lasp import RELEASED_TEXTS


def test_a_released_file_brings_its_layer_norms(make_trainer, tmp_path):
    by_hand, loaded = make_trainer("LASP", output="by_hand"), make_trainer("LASP", output="loaded")
    clip_model = copy.deepcopy(by_hand.model.clip)
    state = {name: p.detach() + 0.1 for name, p in by_hand.model.prompt_learner.named_parameters()}
    assert sum("ln_" in name for name in state) == 4 * len(clip_model.visual.transformer.blocks)
    whole = whole_state_dict(clip_model, state)
    whole = {key.replace("text_encoder.", "text_encoder.module."): tensor for key, tensor in whole.items()}
    whole["prompt_learner.class_text_features"] = torch.ones(2, 5, 16)
    write_original(tmp_path / "released" / "prompt_learner", whole, epoch=5)
    by_hand.model.prompt_learner.load_state_dict(state)
    loaded.load_model(tmp_path / "released", epoch=5)
    assert torch.equal(logits(loaded), logits(by_hand))


@pytest.mark.parametrize("include", [True, False])
def test_extra_classes_are_learned_from_text_and_never_predicted(make_trainer, include):
    extra = ["TRAINER.LASP.EXTRA_CLASSNAMES", ["wok", "cat"], "TRAINER.LASP.INCLUDE_ALL_CLASSES", include]
    trainer = make_trainer("LASP", *extra, "TRAINER.LASP.NOISE", 0.0)
    model, batch = trainer.model, next(iter(trainer.train_loader_x))
    assert len(model.text_features()) == 6  # "cat" is no extra class
    assert logits(trainer).shape == (20, 5)
    _, of_images = trainer.loss(batch["img"], batch["label"])
    every = model.logits(model.image_features(batch["img"]), model.text_features())
    torch.testing.assert_close(of_images, every[:, :5])
    ce = torch.nn.functional.cross_entropy(every if include else every[:, :5], batch["label"])
    torch.testing.assert_close(trainer.loss_parts["ce"], ce.detach())


def test_the_noise_is_on_in_some_steps_and_off_in_others(make_trainer):
    model = make_trainer("LASP").model
    text = model.text_features().detach()
    losses = [model.text_to_text(text).item() for _ in range(20)]
    model.noise = 0.0
    plain = model.text_to_text(text).item()
    assert 0 < losses.count(plain) < 20


def test_the_released_texts_are_complete():
    assert len(RELEASED_TEXTS) == 35 and all(text.count("{}") == 1 for text in RELEASED_TEXTS)
