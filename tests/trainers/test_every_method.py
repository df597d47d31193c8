"""Claims that hold for every method that trains."""

import pytest
import torch

from basics import UserError
from dassl.engine import TRAINER_REGISTRY
from tests.methods import (
    FITTED,
    METHODS,
    SAME_START,
    every_main_method,
    every_main_method_with_steps,
    every_method,
    every_method_with_steps,
    logits,
)


@every_method_with_steps
def test_trainable_parameters_change_and_nothing_else_does(make, method):
    trainer = make(method)
    learner = trainer.model.prompt_learner
    declared = {name: p.detach().clone() for name, p in learner.named_parameters() if p.requires_grad}
    learned = {p.data_ptr() for p in learner.parameters() if p.requires_grad}
    frozen = {name: v for name, v in trainer.model.clip.state_dict().items() if v.data_ptr() not in learned}
    frozen = {name: v.clone() for name, v in frozen.items()}
    trainer.num_batches, trainer.batch_idx = 2, 0
    batches = iter(trainer.train_loader_x)
    trainer.forward_backward(next(batches))
    trainer.test()  # an evaluation in between must not break the gradient
    trainer.set_model_mode("train")
    trainer.forward_backward(next(batches))
    assert declared
    for name, p in learner.named_parameters():
        if name in declared:
            assert p.grad is not None and p.grad.abs().sum() > 0, name
            assert (p.detach() != declared[name]).any(), name
            assert p.dtype == torch.float32
    for name, value in trainer.model.clip.state_dict().items():
        assert name not in frozen or torch.equal(value, frozen[name]), name


@every_main_method_with_steps
def test_the_loss_falls(make, method):
    trainer = make(method, "OPTIM.MAX_EPOCH", 8, "OPTIM.LR", 0.02)
    trainer.train()
    assert trainer.record.rows[-1]["loss"] < trainer.record.rows[0]["loss"]


@every_method
def test_saving_and_loading_gives_equal_logits(make, method):
    trained = make(method, output="trained")
    trained.train()
    fresh = make(method, "SEED", 2, output="fresh")
    assert not torch.equal(logits(fresh), logits(trained)) or method in SAME_START
    fresh.load_model(trained.output_dir)
    assert torch.equal(logits(fresh), logits(trained))


@every_main_method
def test_evaluation_is_independent_of_the_batch_size(make, method, capsys):
    small, large = make(method, test_batch=3, output="small"), make(method, test_batch=20, output="large")
    accuracy = [trainer.test() for trainer in (small, large)]
    whole = logits(large)
    with torch.no_grad():
        parts = torch.cat([small.model(batch["img"]) for batch in small.test_loader])
    if method == "SEP-batch":  # as in the released code, with a message
        assert "a prediction depends on the other images in its batch" in capsys.readouterr().err
        assert not torch.allclose(parts, whole, atol=1e-2)
        return
    assert accuracy[0] == accuracy[1]
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)
    images = torch.cat([batch["img"] for batch in small.test_loader])
    with torch.no_grad():
        torch.testing.assert_close(small.model(images.flip(0)).flip(0), whole, atol=1e-4, rtol=0)


@every_main_method
def test_a_run_is_a_function_of_its_seed(make, method):
    first, again, other = (make(method, "SEED", seed, output=f"{i}") for i, seed in enumerate((0, 0, 1)))
    for trainer in (first, again, other):
        trainer.train()
    assert torch.equal(logits(first), logits(again))
    if method not in (*SAME_START, *FITTED):
        assert not torch.equal(logits(first), logits(other))


@every_main_method_with_steps
@pytest.mark.parametrize("prec", ["bf16", "fp16", "amp"])
def test_half_precision_trains_and_stays_near_float32(make, method, prec):
    node = f"TRAINER.{TRAINER_REGISTRY.get(method.split('-')[0]).config_node}.PREC"
    if method in ("VPT-bias", "VPT-partial", "VPT-both", "VPT-full") and prec != "amp":
        with pytest.raises(UserError, match="PREC: expected fp32 or amp with TUNE"):
            make(method, node, prec)
        return
    exact, half = make(method, output="exact"), make(method, node, prec, output="half")
    # bf16 keeps 8 of 24 significant bits, fp16 11: cosines are within 0.02. SEP-batch also selects tokens by rank.
    fixed_scale = method.startswith(("CLIPLoRA", "MMRL"))
    scale = 100 if fixed_scale else exact.model.clip.logit_scale.exp().item()
    assert (logits(half).float() - logits(exact)).abs().max().item() < scale * (0.05 if method == "SEP-batch" else 0.02)
    half.set_model_mode("train")
    before = half.model.prompt_learner.state_dict()
    before = {k: v.clone() for k, v in before.items()}
    half.num_batches, half.batch_idx = 2, 0
    half.forward_backward(next(iter(half.train_loader_x)))
    for name, p in half.model.prompt_learner.named_parameters():
        assert p.dtype == torch.float32 and p.isfinite().all()
        assert (p.detach() != before[name]).any() == p.requires_grad, name


@every_main_method_with_steps
def test_a_class_name_may_fill_the_context_but_not_exceed_it(make, method):
    fixed = 3 + 4  # start, ".", end; four vectors, or "a photo of a" in whole or in part
    if method.startswith("SEP"):
        fixed += 2  # six vectors
    if method == "PromptSRC":
        fixed += 4  # the longest of its templates
    if method.startswith("LASP"):
        fixed += 5  # likewise
    if method.startswith("RPO"):
        fixed += METHODS[method][1]  # K follow the words
    room = 77 - fixed
    trainer = make(method, classnames=["cat " * room, "dog"])
    assert logits(trainer).isfinite().all()
    with pytest.raises(UserError, match="class 'cat cat.*: expected at most 77 positions.*Shorten the name"):
        make(method, classnames=["cat " * (room + 1), "dog"], output="over")


def test_every_method_trains_with_a_single_class(make):
    assert logits(make("RPO", classnames=["cat"])).shape == (20, 1)
    assert logits(make("CoOp", classnames=["cat"])).shape == (20, 1)
