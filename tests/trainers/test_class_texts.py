"""The text of a class: which names and templates a method uses."""

import json

import pytest
import torch
import torch.nn.functional as F

from basics import UserError
from clip import encode, tokenize
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


def test_the_linear_probe_has_its_own_text(make_trainer):
    def features(*opts, output):
        return make_trainer("LP", *opts, classnames=["cat", "dog"], output=output).model.features

    released = features("TRAINER.LP.PROMPT", "A photo of a {cls_name}", output="a")
    assert torch.equal(released, features("DATASET.PROMPT", "a photo of a {}", output="b"))
    assert not torch.equal(released, features(output="c"))  # with a period
    with pytest.raises(UserError, match=r"TRAINER.LP.PROMPT: expected {} or {cls_name} in it, got 'a photo'"):
        features("TRAINER.LP.PROMPT", "a photo", output="d")


def sentences(tmp_path, **texts):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(texts or {"cat": ["A cat purrs.", "a photo of a cat."], "yellow lab": ["A dog."]}))
    return ["DATASET.CLASS_TEXTS", str(path)]


@pytest.mark.parametrize("method", ["ZeroshotCLIP", "LP", "VPT", "IVLP"])
def test_the_feature_of_a_class_is_the_mean_over_its_texts(make_trainer, tmp_path, method):
    shallow = ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 1, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 1]
    trainer = make_trainer(method, *sentences(tmp_path), *shallow, classnames=["cat", "yellow_lab"])
    clip_model = trainer.model.clip
    with torch.no_grad():
        each = F.normalize(clip_model.encode_text(tokenize(["A cat purrs.", "a photo of a cat.", "A dog."])), dim=-1)
        expected = F.normalize(torch.stack([each[:2].mean(dim=0), each[2]]), dim=-1)
    torch.testing.assert_close(trainer.model.features, expected)


def test_rpos_prompts_attend_to_a_given_text(make_trainer, tmp_path):
    given = sentences(tmp_path, cat=["A cat purrs."], dog=["A dog barks."])
    trainer = make_trainer("RPO", *given, classnames=["cat", "dog"])
    assert torch.equal(trainer.model.words.tokens, tokenize(["A cat purrs.", "A dog barks."]))
    with pytest.raises(UserError, match="expected one text per class.*got more for cat"):
        make_trainer("RPO", *sentences(tmp_path, cat=["a", "b"], dog=["c"]), classnames=["cat", "dog"])


def test_texts_that_do_not_fit_the_classes_are_refused(make_trainer, tmp_path):
    with pytest.raises(UserError, match="expected texts for every class, got none for dog, fox. Add them"):
        make_trainer("LP", *sentences(tmp_path, cat=["a"]), classnames=["cat", "dog", "fox"])
    with pytest.raises(UserError, match=r"expected {class name: \[text, ...\]} in JSON"):
        make_trainer("LP", *sentences(tmp_path, cat="a"), classnames=["cat"])
    with pytest.raises(UserError, match="expected a method with fixed class texts, got CoOp"):
        make_trainer("CoOp", *sentences(tmp_path), classnames=["cat"])
    with pytest.raises(UserError, match="DATASET.CLASS_TEXTS: expected a file"):
        make_trainer("LP", "DATASET.CLASS_TEXTS", str(tmp_path / "none.json"))
    with pytest.raises(UserError, match="class 'cat': expected at most 77 positions for its text"):
        make_trainer("LP", *sentences(tmp_path, cat=["word " * 99]), classnames=["cat"])


@pytest.mark.parametrize(("templates", "number"), [("selected", 7), ("imagenet", 80)])
def test_the_ensemble_is_that_of_the_released_code(make_trainer, templates, number):
    opts = ["TRAINER.ZEROSHOTCLIP2.TEMPLATES", templates, "DATASET.NAME"]
    other = make_trainer("ZeroshotCLIP2", *opts, "OxfordPets")
    imagenet = make_trainer("ZeroshotCLIP2", *opts, "ImageNet", output="imagenet")
    (texts,) = other.fixed_texts(["cat"])
    assert len(texts) == number + 1 and texts[-1] == "a photo of a cat." and "itap of a cat." in texts
    assert imagenet.fixed_texts(["cat"]) == [texts[:-1]]
