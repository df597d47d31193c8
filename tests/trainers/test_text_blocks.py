"""Class texts in blocks give the same numbers with less memory."""

import pytest
import torch
import torch.nn.functional as F

import dassl.engine.accelerate
from basics import UserError
from dassl.engine.accelerate import bytes_kept
from tests.methods import maker

METHODS = {
    "CoOp": ["TRAINER.COOP.N_CTX", 4],
    "CoOp-CSC": ["TRAINER.COOP.N_CTX", 4, "TRAINER.COOP.CSC", True],
    "CoOp-middle": ["TRAINER.COOP.N_CTX", 4, "TRAINER.COOP.CLASS_TOKEN_POSITION", "middle"],
    "CoCoOp": ["TRAINER.COCOOP.N_CTX", 4],
    "MaPLe": ["TRAINER.MAPLE.PROMPT_DEPTH", 2],
    "IVLP": ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 0],
    "VPT": [],
    "LP": [],
    "SEP": ["TRAINER.SEP.LAYERS", [1]],
    "RPO": ["TRAINER.RPO.K", 3],
    "RPO-unmasked": ["TRAINER.RPO.K", 2, "TRAINER.RPO.MASK", False],
    "RPO-image": ["TRAINER.RPO.K", 2, "TRAINER.RPO.PROMPTS", "image"],
}


@pytest.fixture
def make(make_trainer):
    return maker(make_trainer, METHODS)


def step(trainer):
    """Return the logits, and the gradients of a training step."""
    batch = next(iter(trainer.train_loader_x))
    trainer.set_model_mode("train")
    logits = trainer.model(batch["img"])
    learned = [p for p in trainer.model.prompt_learner.parameters() if p.requires_grad]
    grads = torch.autograd.grad(F.cross_entropy(logits, batch["label"]), learned, allow_unused=True)
    return logits, [g for g in grads if g is not None]


@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_any_size_give_the_same_logits_and_gradients(make, method):
    trainer = make(method)
    assert trainer.model.text_block == 0  # five classes fit into memory
    whole_logits, whole_grads = step(trainer)
    for size in (1, 2, 4, 5, 1000):
        trainer.model.text_block = size
        logits, grads = step(trainer)
        torch.testing.assert_close(logits, whole_logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(grads, whole_grads, atol=1e-6, rtol=1e-4)
        with torch.no_grad():
            evaluated = trainer.model(next(iter(trainer.train_loader_x))["img"])
        torch.testing.assert_close(evaluated, whole_logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["CoOp", "CoCoOp", "MaPLe", "SEP", "RPO"])
def test_only_the_activations_of_one_block_are_kept(make, method):
    model = make(method, classnames=[f"{a} {b}" for a in ("red", "blue", "green", "old") for b in ("cat", "dog")]).model
    whole = bytes_kept(lambda classes: model.in_blocks(lambda c: model.text_step(2, c), 0), slice(None))
    kept = bytes_kept(lambda classes: model.in_blocks(lambda c: model.text_step(2, c), 1), slice(None))
    assert kept < whole / 4  # what remains: features, and what all blocks share


@pytest.mark.parametrize("prec", ["amp", "bf16"])
def test_blocks_give_the_same_step_in_half_precision(make, prec):
    whole = make("RPO", "TRAINER.RPO.PREC", prec, output="whole")
    blocks = make("RPO", "TRAINER.RPO.PREC", prec, "MODEL.TEXT_BLOCK", '"2"', output="blocks")
    assert blocks.model.text_block == 2
    for trainer in (whole, blocks):
        trainer.num_batches, trainer.batch_idx = 9, 0
        trainer.set_model_mode("train")
    batch = next(iter(whole.train_loader_x))
    losses = [trainer.forward_backward(batch)["loss"] for trainer in (whole, blocks)]
    torch.testing.assert_close(*losses, atol=1e-3, rtol=1e-3)
    for one, other in zip(
        whole.model.prompt_learner.parameters(), blocks.model.prompt_learner.parameters(), strict=True
    ):
        torch.testing.assert_close(one.grad, other.grad, atol=0.02 * float(one.grad.abs().max()), rtol=0)


def test_auto_uses_up_to_half_of_the_free_memory(make, monkeypatch, capsys):
    names = [f"{i} cats" for i in range(100)]
    model = make("CoOp", classnames=names).model
    each = (bytes_kept(model.class_features, slice(0, 16)) - bytes_kept(model.class_features, slice(0, 8))) // 8
    assert each > 0
    for free, block in ((2 * 100 * each, 0), (2 * 30 * each, 30), (0, 1)):
        monkeypatch.setattr(dassl.engine.accelerate, "free_memory", lambda device, free=free: free)
        assert make("CoOp", classnames=names, output=f"{block}").model.text_block == block
    assert "MODEL.TEXT_BLOCK auto: 100 class texts would keep" in capsys.readouterr().err


def test_auto_counts_the_texts_of_all_images_in_a_batch(make):
    model = make("CoCoOp").model
    one, four = (bytes_kept(lambda c, b=b: model.text_step(b, c), slice(0, 5)) for b in (1, 4))
    assert four > 2 * one


def test_blocks_of_cocoop_use_the_memory_that_auto_found(make, monkeypatch, capsys):
    names, batch = [f"{i} cats" for i in range(40)], ("DATALOADER.TRAIN_X.BATCH_SIZE", 5)
    model = make("CoCoOp", *batch, classnames=names).model
    each = (
        bytes_kept(lambda c: model.text_step(5, c), slice(0, 16))
        - bytes_kept(lambda c: model.text_step(5, c), slice(0, 8))
    ) // 8
    monkeypatch.setattr(dassl.engine.accelerate, "free_memory", lambda device: 2 * 10 * each)
    trainer = make("CoCoOp", *batch, classnames=names, output="short")
    assert trainer.model.text_block == 50 and "200 class texts would keep" in capsys.readouterr().err
    seen, similarities = [], trainer.model.similarities
    monkeypatch.setattr(
        trainer.model, "similarities", lambda i, c: seen.append((len(i), c.stop - c.start)) or similarities(i, c)
    )
    trainer.model(next(iter(trainer.train_loader_x))["img"])
    assert seen == [(5, 10)] * 4


@pytest.mark.parametrize("setting", ["Auto", "-1", "2.5", ""])
def test_a_text_block_that_is_not_a_number_is_refused(make, setting):
    with pytest.raises(UserError, match="TEXT_BLOCK: expected auto, 0 or a number"):
        make("CoOp", "MODEL.TEXT_BLOCK", f'"{setting}"')


def test_sep_across_the_batch_refuses_blocks(make):
    with pytest.raises(UserError, match="TEXT_BLOCK: expected auto or 0 with TRAINER.SEP.SELECT batch, got 2"):
        make("SEP", "TRAINER.SEP.SELECT", "batch", "MODEL.TEXT_BLOCK", '"2"')


def test_sep_across_the_batch_never_uses_blocks_with_auto(make, monkeypatch, capsys):
    monkeypatch.setattr(dassl.engine.accelerate, "free_memory", lambda device: 0)
    assert make("SEP", "TRAINER.SEP.SELECT", "batch").model.text_block == 0
    assert "TEXT_BLOCK" not in capsys.readouterr().err


def test_rpo_without_a_kv_cache_gives_the_same_step(make):
    kept, computed = make("RPO", output="kept"), make("RPO", "MODEL.TEXT_MEMORY", 0.0, output="computed")
    assert kept.model.words.kept is not None and computed.model.words.kept is None
    torch.testing.assert_close(step(computed), step(kept), atol=0, rtol=0)
    computed.model.text_block = 2
    torch.testing.assert_close(step(computed)[0], step(kept)[0], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["RPO", "CoOp", "MaPLe"])
def test_21000_classes_in_blocks_give_the_same_step(make, method):
    names = [f"kind {number}" for number in range(21_000)]
    whole = make(method, "MODEL.TEXT_BLOCK", '"0"', output="whole", classnames=names)
    expected = step(whole)
    assert expected[0].shape[1] == len(names)
    blocks = make(*(method, "MODEL.TEXT_BLOCK", '"2000"', "MODEL.TEXT_MEMORY", 0.0), output="blocks", classnames=names)
    prefilled = []
    if method == "RPO":
        plain = blocks.model.words._prefill
        blocks.model.words._prefill = lambda clip, classes: prefilled.append(classes) or plain(clip, classes)
    logits, grads = step(blocks)
    torch.testing.assert_close(logits, expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(grads, expected[1], atol=1e-6, rtol=1e-3)
    assert all(classes.stop - classes.start <= 2000 for classes in prefilled)
    assert len(prefilled) == (2 * 11 if method == "RPO" else 0)  # forward, and again in the backward pass
