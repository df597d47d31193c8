"""The text of a class: which names and templates a method uses."""

import pytest
import torch

from basics import UserError
from clip import encode
from tests import plain_clip

NAMES = ["american_bulldog", "cat"]


def test_names_have_spaces_unless_their_underscores_are_kept(make_trainer):
    spaced = make_trainer("RPO", classnames=NAMES)
    kept = make_trainer("RPO", "DATASET.KEEP_UNDERSCORES", True, classnames=NAMES, output="kept")
    texts = [f"a photo of a {name}." for name in NAMES]
    assert len(encode(texts[0])) == len(encode("a photo of a american bulldog.")) + 1
    for trainer, expected in ((kept, texts), (spaced, [text.replace("_", " ") for text in texts])):
        learner, config = trainer.model.prompt_learner, trainer.model.clip.config
        state = trainer.model.clip.state_dict()
        images, heads = next(iter(trainer.test_loader))["img"], (config.vision_heads, config.text_heads)
        trainer.set_model_mode("eval")
        with torch.no_grad():
            plain = plain_clip.rpo(state, images, expected, learner.text_prompt, learner.img_prompt, heads)
            torch.testing.assert_close(trainer.model(images), plain, atol=1e-3, rtol=0)


def test_the_linear_probe_has_a_text_of_its_own(make_trainer):
    def features(*opts, output):
        return make_trainer("LP", *opts, classnames=["cat", "dog"], output=output).model.features

    released = features("TRAINER.LP.PROMPT", "A photo of a {cls_name}", output="a")
    assert torch.equal(released, features("DATASET.PROMPT", "a photo of a {}", output="b"))
    assert not torch.equal(released, features(output="c"))  # with a period
    with pytest.raises(UserError, match=r"TRAINER.LP.PROMPT: expected {} or {cls_name} in it, got 'a photo'"):
        features("TRAINER.LP.PROMPT", "a photo", output="d")
