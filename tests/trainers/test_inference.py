"""A trained model gives the same answers without its run, its dataset, and its optimizer."""

import json

import pytest
import torch

from basics import NotApplicable, UserError
from promptlearn.classifier import PromptedClassifier
from tests.methods import every_main_method, logits

OTHER_CLASSES = ["red fox", "gray_wolf", "owl"]
ZERO_SHOT = {"ZeroshotCLIP": [], "ZeroshotCLIP2": ["TRAINER.ZEROSHOTCLIP2.TEMPLATES", "selected"]}


def images_of(trainer):
    return torch.cat([batch["img"] for batch in trainer.test_loader])


def assert_same(classifier, trainer):
    torch.testing.assert_close(classifier.logits(images_of(trainer)), logits(trainer).float(), atol=1e-4, rtol=0)


@every_main_method
def test_a_saved_model_gives_the_logits_of_the_run(make, method, tmp_path):
    if method == "SEP-batch":
        pytest.skip("has answers that depend on the batch, as released")
    trainer = make(method, "OPTIM.MAX_EPOCH", 1)
    trainer.train()
    from_run = PromptedClassifier.from_pretrained(trainer.output_dir, device="cpu")
    assert_same(from_run, trainer)
    assert from_run.prompts_sha256 == json.loads((tmp_path / "run" / "results.json").read_text())["prompts_sha256"]
    from_run.save_pretrained(tmp_path / "model")
    saved = PromptedClassifier.from_pretrained(tmp_path / "model", device="cpu")
    assert torch.equal(saved.logits(images_of(trainer)), from_run.logits(images_of(trainer)))

    if trainer.model.per_class_parameters:
        with pytest.raises(NotApplicable, match="classnames: expected the classes that the model was trained on"):
            saved.classnames = OTHER_CLASSES
        assert_same(saved, trainer)
        return
    saved.classnames = OTHER_CLASSES
    other = make(method, classnames=OTHER_CLASSES, output="other")
    other.load_model(trainer.output_dir)
    assert_same(saved, other)
    saved.classnames = trainer.dm.dataset.classnames
    assert_same(saved, trainer)


@pytest.mark.parametrize("method", ZERO_SHOT)
def test_an_untrained_method_can_be_saved(make_trainer, method, tmp_path):
    trainer = make_trainer(method, *ZERO_SHOT[method])
    trainer.train()
    classifier = PromptedClassifier.from_pretrained(trainer.output_dir, device="cpu")
    assert_same(classifier, trainer)
    classifier.save_pretrained(tmp_path / "model", include_backbone=True)
    (tmp_path / "backbone.safetensors").unlink(missing_ok=True)
    assert_same(PromptedClassifier.from_pretrained(tmp_path / "model", device="cpu"), trainer)


@pytest.fixture
def model(make, tmp_path):
    """Save a model and return its folder."""
    trainer = make("RPO", "OPTIM.MAX_EPOCH", 1)
    trainer.train()
    PromptedClassifier.from_pretrained(trainer.output_dir, device="cpu").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "Nothing"}, "method: expected one of CLIPAdapter, "),
        ({"format": 2}, "expected the description of a model"),
        ({"weights_sha256": "0" * 64}, "expected the backbone that the model was trained on"),
        ({"calibration": {"temperature": 0}}, "expected the description of a model"),
        ({"classnames": []}, "expected the description of a model"),
        ({"classnames": ["cat", "cat"]}, "expected distinct class names, got 'cat' twice"),
        ({"settings": {"TRAINER.RPO.NOTHING": 1}}, "TRAINER.RPO.NOTHING"),
        ({"settings": {"MODEL.BACKBONE.NAME": "/nowhere"}}, "MODEL.BACKBONE.NAME: expected one of"),
    ],
)
def test_a_wrong_description_is_refused(model, changes, message):
    change(model, **changes)
    with pytest.raises(UserError, match=message):
        PromptedClassifier.from_pretrained(model)


def test_missing_tensors_and_wrong_shapes_are_refused(model):
    (model / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="expected a safetensors file"):
        PromptedClassifier.from_pretrained(model)
    (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match="expected the trained tensors of a model, got nothing"):
        PromptedClassifier.from_pretrained(model)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected the folder of a saved model \(config.json\) or of a run"):
        PromptedClassifier.from_pretrained(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(UserError, match="got a run without it. Run its train.py command again"):
        PromptedClassifier.from_pretrained(tmp_path)


def test_a_run_is_found_by_the_files_inside_it(make):
    trainer = make("RPO", "OPTIM.MAX_EPOCH", 2, "TRAIN.CHECKPOINT_FREQ", 1)
    trainer.train()
    folder = f"{trainer.output_dir}/prompt_learner"
    for path in (folder, f"{folder}/model.pth.tar-2"):
        assert_same(PromptedClassifier.from_pretrained(path, device="cpu"), trainer)
    first = PromptedClassifier.from_pretrained(f"{folder}/model.pth.tar-1", device="cpu")
    trainer.load_model(trainer.output_dir, epoch=1)
    assert_same(first, trainer)
    with pytest.raises(UserError, match="tar-3: expected the folder of a saved model .* got nothing"):
        PromptedClassifier.from_pretrained(f"{folder}/model.pth.tar-3", device="cpu")
