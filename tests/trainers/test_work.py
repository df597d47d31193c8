"""The operations that results.json reports are those of the method, and counting them changes nothing."""

import pytest
import torch

from clip.counting import counted
from tests.methods import FITTED, METHODS

FAST = ("CoOp", "CoCoOp", "MaPLe", "SEP", "RPO", "VPT-dropout", "VPT-mlp", "VPT-adapter", "LinearProbeCLIP")


def test_a_test_image_of_zero_shot_clip_by_hand(make_trainer):
    trainer = make_trainer("ZeroshotCLIP")
    config, classes = trainer.model.clip.config, trainer.num_classes
    width, tokens = config.vision_width, (config.image_size // config.patch_size) ** 2 + 1
    patches = 2 * (tokens - 1) * width * 3 * config.patch_size**2

    def layer(asking):  # all tokens give keys and values, `asking` of them are needed after the layer
        keys_values, queries, out = tokens * 2 * width**2, asking * width**2, asking * width**2
        attention, mlp = 2 * asking * tokens * width, 2 * asking * 4 * width**2
        return 2 * (keys_values + queries + out + attention + mlp)

    embed = config.embed_dim
    expected = patches + (config.vision_layers - 1) * layer(tokens) + layer(1) + 2 * width * embed + 2 * embed * classes
    assert trainer.count_gflop() == {"training_step": None, "test_image": expected / 1e9}


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in METHODS]
)
def test_counting_changes_nothing_and_counts_a_step(make, method):
    trainer = make(method)
    trainer.set_model_mode("train")
    state = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    random = torch.get_rng_state()
    work = trainer.count_gflop()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in trainer.model.state_dict().items())
    assert all(p.grad is None for p in trainer.model.parameters())
    assert trainer.model.prompt_learner.training and work["test_image"] > 0
    if method in FITTED:
        assert work["training_step"] is None
        return
    batch = next(iter(trainer.train_loader_x))
    trainer.set_model_mode("eval")  # dropout is no product, but batch norm learns
    images, labels = trainer.parse_batch_train(batch)
    trainer.cfg.defrost()
    trainer.cfg.DATALOADER.TRAIN_X.BATCH_SIZE = len(images)
    assert trainer.count_gflop()["training_step"] == pytest.approx(
        counted(lambda: trainer.outputs(images, labels)[0]) / 1e9, rel=1e-12
    )
