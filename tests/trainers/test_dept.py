"""DePT's head belongs to the classes that it was trained on, and is off for others."""

import pytest
import torch
from original_files import whole_state_dict, write_original

from basics import UserError
from tests.methods import logits

SETTINGS = ["TRAINER.DEPT.N_CTX", 4]
NEW = "DATASET.SUBSAMPLE_CLASSES", "new"
OTHERS = ["owl", "yellow_lab", "Boeing 747-400", "sea horse", "yin yang"]


@pytest.fixture
def make(make_trainer):
    return lambda *opts, **options: make_trainer("DePT", *SETTINGS, *opts, **options)


@pytest.fixture
def trained(make):
    trainer = make(output="trained")
    trainer.train()
    return trainer


def cosines(trainer):
    """Return the logits without the head."""
    model, images = trainer.model, torch.cat([batch["img"] for batch in trainer.test_loader])
    trainer.set_model_mode("eval")
    with torch.no_grad():
        return model.logits(model.image_features(images), model.text_features())


def test_the_head_takes_part_only_for_classes_that_it_knows(trained, make):
    assert not torch.allclose(logits(trained), cosines(trained), atol=0.1)
    for number, names in enumerate((OTHERS, ["owl", "cat"])):
        other = make(*NEW, classnames=names, output=f"other{number}")
        other.load_model(trained.output_dir)
        assert torch.equal(logits(other), cosines(other))


def test_fewer_classes_get_their_rows_of_the_head(trained, make):
    fewer = make(classnames=["yin yang", "cat"], output="fewer")
    fewer.load_model(trained.output_dir)
    torch.testing.assert_close(logits(fewer), logits(trained)[:, [4, 0]])


def test_a_released_file_is_not_taken_for_one_of_as_many_new_classes(make, tmp_path):
    trainer = make()
    state = {name: p.detach() for name, p in trainer.model.prompt_learner.named_parameters()}
    write_original(tmp_path / "released" / "PromptLearner", whole_state_dict(trainer.model.clip, state), epoch=5)
    for opts, uses_head in (((), True), (NEW, False)):
        loaded = make(*opts, output=f"head{uses_head}")
        loaded.load_model(tmp_path / "released", epoch=5)
        assert torch.equal(logits(loaded), cosines(loaded)) != uses_head


def test_training_does_not_start_from_a_head_of_other_classes(trained, make):
    path = f"{trained.output_dir}/PromptLearner/model.pth.tar-3"
    with pytest.raises(UserError, match="INIT_WEIGHTS: expected a head of the same classes"):
        make("MODEL.INIT_WEIGHTS", path, classnames=OTHERS, output="other")
