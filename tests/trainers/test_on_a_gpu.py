"""What only a GPU can show: the captured step, reproducible bytes, and steps without synchronization."""

import itertools

import pytest
import torch

from dassl.engine import TRAINER_REGISTRY
from tests.methods import WITH_STEPS, is_variant
from trainers.rpo import RPO

pytestmark = pytest.mark.gpu

PRECISIONS = ("fp32", "amp", "bf16", "fp16")
MAIN = [name for name in WITH_STEPS if not is_variant(name)]


def trainer_class(method):
    return TRAINER_REGISTRY.get(method.split("-")[0])


@pytest.fixture
def trained(make):
    """Return trained(method, *opts): the trainer after some steps, its prompts, the losses."""

    def train(method, *opts, prec="fp32"):
        precision = [f"TRAINER.{trainer_class(method).config_node}.PREC", prec]
        trainer = make(method, *precision, "DATALOADER.FEATURES_GIB", 0.0, "MODEL.CUDA_GRAPH", False, *opts)
        trainer.num_batches, trainer.batch_idx = 99, 0
        trainer.set_model_mode("train")
        torch.manual_seed(7)  # the dropout stream
        losses = []
        for _ in range(3):
            for batch in trainer.train_loader_x:
                trainer.open_step(batch)
                losses.append(trainer.forward_backward(batch))
        torch.cuda.synchronize()
        prompts = [p.detach().clone() for p in trainer.model.prompt_learner.parameters()]
        return trainer, prompts, [{k: float(v.detach()) for k, v in loss.items()} for loss in losses]

    return train


@pytest.mark.parametrize("method, prec", [*itertools.product(MAIN, PRECISIONS), ("VPT-mlp", "fp32")])  # batch norm
def test_a_captured_step_and_a_repeated_run_give_the_same_bits(method, prec, trained, capsys):
    _, *expected = trained(method, prec=prec)
    _, *again = trained(method, prec=prec)
    assert again[1] == expected[1]
    torch.testing.assert_close(again[0], expected[0], atol=0, rtol=0)
    captured, *replayed = trained(method, "MODEL.CUDA_GRAPH", True, prec=prec)
    assert "failed" not in capsys.readouterr().err
    assert (getattr(captured.step, "graphed", None) is not None) == captured.static_step
    assert replayed[1] == expected[1]
    torch.testing.assert_close(replayed[0], expected[0], atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("method", [method for method in MAIN if trainer_class(method).static_step])
def test_a_step_does_not_wait_for_the_gpu(method, graph, trained):
    trainer, *_ = trained(method, "MODEL.CUDA_GRAPH", graph)
    batch = {k: v.pin_memory() if torch.is_tensor(v) else v for k, v in next(iter(trainer.train_loader_x)).items()}
    try:
        torch.cuda.set_sync_debug_mode("error")
        trainer.forward_backward(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_batch_of_another_shape_runs_uncaptured(trained):
    trainer, *_ = trained("RPO", "MODEL.CUDA_GRAPH", True)
    batch = {k: v[:2] for k, v in next(iter(trainer.train_loader_x)).items()}
    captured, shapes = trainer.step.graphed, trainer.step.shapes
    assert torch.isfinite(trainer.forward_backward(batch)["loss"])
    assert trainer.step.graphed is captured and trainer.step.shapes == shapes


def test_a_loss_that_synchronizes_runs_uncaptured_with_a_message(trained, capsys, monkeypatch):
    _, *expected = trained("RPO")
    loss = RPO.loss

    def synchronizing(self, images, labels):
        value, logits = loss(self, images, labels)
        assert value.item() > 0
        return value, logits

    monkeypatch.setattr(RPO, "loss", synchronizing)
    _, *uncaptured = trained("RPO", "MODEL.CUDA_GRAPH", True)
    assert "MODEL.CUDA_GRAPH: capturing failed; running the step uncaptured" in capsys.readouterr().err
    torch.testing.assert_close(uncaptured[0], expected[0], atol=0, rtol=0)
    assert torch.rand(1, device="cuda").item() < 1  # the random stream works


def test_a_captured_step_in_text_blocks_gives_the_same_bits(trained):
    _, *expected = trained("RPO", "MODEL.TEXT_BLOCK", '"2"')
    _, *captured = trained("RPO", "MODEL.TEXT_BLOCK", '"2"', "MODEL.CUDA_GRAPH", True)
    torch.testing.assert_close(captured[0], expected[0], atol=0, rtol=0)
