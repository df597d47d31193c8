"""With a ResNet, methods with a frozen image side train; the others refuse it before training."""

import pytest
import torch
from small_resnet import make_small_resnet

from basics import UserError
from trainers.explain import observe


@pytest.fixture
def backbone(tmp_path):
    torch.save(make_small_resnet().state_dict(), tmp_path / "resnet.pt")
    return ["MODEL.BACKBONE.NAME", str(tmp_path / "resnet.pt"), "INPUT.SIZE", (32, 32)]


@pytest.mark.parametrize("name", ["ZeroshotCLIP", "CoOp", "CoCoOp", "LP", "LinearProbeCLIP"])
def test_a_method_with_a_frozen_image_side_trains_on_a_resnet(name, make_trainer, backbone):
    trainer = make_trainer(name, *backbone)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    before = {k: v.clone() for k, v in trainer.model.clip.state_dict().items()}
    trainer.set_model_mode("train")
    trainer.model.train()
    logits = trainer.model(images)
    assert logits.shape == (4, 5) and logits.isfinite().all()
    if name != "ZeroshotCLIP":
        trainer.model_backward_and_update(torch.nn.functional.cross_entropy(logits, labels))
        assert all(p.grad.abs().max() > 0 for p in trainer.model.prompt_learner.parameters() if p.requires_grad)
    assert all(torch.equal(v, before[k]) for k, v in trainer.model.clip.state_dict().items())


def test_only_the_text_side_of_a_resnet_is_explained(make_trainer, backbone):
    trainer = make_trainer("CoOp", *backbone)
    trainer.dm.test_loader = [{"img": torch.randn(4, 3, 32, 32)}]
    assert list(observe(trainer)) == ["text"]


@pytest.mark.parametrize(
    ("name", "opts"), [("RPO", []), ("MaPLe", []), ("IVLP", ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 1])]
)
def test_a_method_with_image_prompts_refuses_a_resnet(name, opts, make_trainer, backbone):
    with pytest.raises(UserError, match="MODEL.BACKBONE.NAME: expected a ViT"):
        make_trainer(name, *backbone, *opts)
