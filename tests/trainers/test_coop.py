"""CoOp's layouts equal the plain path for names of any length."""

import json

import plain_clip
import pytest
import torch
from small_clip import SMALL_HEADS
from yacs.config import CfgNode

from basics import NotApplicable, UserError
from trainers.context import ContextCLIP

NAMES = ["cat", "Boeing 747-400", "abandoned factory", "x", "hawk (bird)", "U.S.A."]  # ")." is a single token


def build(model, n_ctx=4, position="end", csc=False, init="", names=NAMES):
    options = CfgNode({"N_CTX": n_ctx, "CSC": csc, "CTX_INIT": init, "CLASS_TOKEN_POSITION": position})
    return ContextCLIP(model, names, options)


@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("n_ctx", [1, 4, 5])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_the_fast_path_equals_the_plain_path(small_clip, position, n_ctx, csc):
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    method = build(small_clip, n_ctx, position, csc)
    ctx = method.prompt_learner.ctx
    ctx.data.mul_(20)  # far from zero, so that a misplaced context vector shows
    plain = plain_clip.coop(small_clip.state_dict(), images, NAMES, ctx, position, SMALL_HEADS)
    torch.testing.assert_close(method(images), plain, atol=1e-4, rtol=0)
    fast = torch.autograd.grad(method(images).square().sum(), ctx)[0]
    torch.testing.assert_close(fast, torch.autograd.grad(plain.square().sum(), ctx)[0], atol=1e-3, rtol=1e-3)


def test_a_context_from_words_gives_the_logits_of_zero_shot_clip(small_clip):
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    method = build(small_clip, init="a photo of a")
    texts = [f"a photo of a {name}." for name in NAMES]
    zero_shot = plain_clip.zero_shot(small_clip.state_dict(), images, texts, SMALL_HEADS)
    torch.testing.assert_close(method(images), zero_shot, atol=1e-4, rtol=0)
    assert method.prompt_learner.ctx.shape == (4, 16)


def test_vectors_may_fill_the_context_but_not_exceed_it(small_clip):
    build(small_clip, n_ctx=73, names=["cat"])
    with pytest.raises(UserError, match="expected at most 73 .* the other tokens need 4.*, got 74"):
        build(small_clip, n_ctx=74, names=["cat"])


def test_class_specific_context_of_other_classes_is_refused(make_trainer):
    csc = ["TRAINER.COOP.N_CTX", 2, "TRAINER.COOP.CSC", True]
    make_trainer("CoOp", *csc, output="base").train()
    other = make_trainer("CoOp", *csc, classnames=["a", "b", "c", "d", "e"], output="new")
    with pytest.raises(UserError, match="expected weights of the classes a, b, c, d, e, got those of cat, yellow lab"):
        other.load_model(other.output_dir.replace("new", "base"))


def test_invalid_settings_are_refused(make_trainer):
    with pytest.raises(UserError, match="CLASS_TOKEN_POSITION: expected one of end, middle, front, got 'back'"):
        make_trainer("CoOp", "TRAINER.COOP.CLASS_TOKEN_POSITION", "back")
    with pytest.raises(UserError, match="N_CTX: expected at least 1, got 0"):
        make_trainer("CoOp", "TRAINER.COOP.N_CTX", 0)
    with pytest.raises(UserError, match="PREC: expected one of fp32, amp, fp16, bf16, got 'fp8'"):
        make_trainer("CoOp", "TRAINER.COOP.PREC", "fp8")
    with pytest.raises(UserError, match=r"INPUT.SIZE: expected \(24, 24\) for .*, got \(224, 224\)\."):
        make_trainer("CoOp", "INPUT.SIZE", (224, 224))


def test_class_specific_context_has_no_answer_for_other_classes(make_trainer, tmp_path):
    opts = ("TRAINER.COOP.CSC", True, "OPTIM.MAX_EPOCH", 1)
    make_trainer("CoOp", *opts, output="trained").train()
    other = make_trainer("CoOp", *opts, classnames=["a", "b", "c", "d", "e"], output="tested")
    with pytest.raises(NotApplicable):
        other.evaluate(tmp_path / "trained")
    result = json.loads((tmp_path / "tested" / "results.json").read_text())
    assert (result["status"], result["metrics"]) == ("n/a", None)
