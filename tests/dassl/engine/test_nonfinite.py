"""An infinite or NaN loss is reported with its details, never stepped on and never saved."""

import json

import pytest
import torch

from basics import NonFiniteLoss, UserError
from dassl.engine import nonfinite
from dassl.engine.nonfinite import LossWatch, StepInfo, allowed_steps
from dassl.utils import load_checkpoint

BAD = pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])


def stopped(trainer):
    with pytest.raises(NonFiniteLoss) as error:
        trainer.train()
    assert isinstance(error.value, FloatingPointError) and isinstance(error.value, UserError)
    return str(error.value)


def saved(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.p*t*") if path.is_file()}


@BAD
def test_the_run_stops_before_any_change_and_names_step_and_files(make, bad):
    trainer = make()
    trainer.bad_at, trainer.bad = [(0, 0)], bad
    before = trainer.model.ctx.clone()
    message = stopped(trainer)
    assert f"Loss is infinite or NaN! Got [{bad}] in epoch 1, batch 1." in message
    lines = message.splitlines()
    assert lines[1].startswith("entropy: 1.") and lines[2:4] == ["rest: 0.5", "Files of the batch:"]
    assert len(lines) == 8 and all(line.endswith(".png") for line in lines[4:])
    assert torch.equal(trainer.model.ctx, before)


def test_saved_files_survive_a_bad_loss_and_the_run_can_resume(make, tmp_path):
    opts = ("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_MINUTES", "1e-9")
    make(*opts, folder="whole").train()
    trainer = make(*opts)
    trainer.bad_at = [(2, 1)]
    assert "in epoch 3, batch 2." in stopped(trainer)
    before = saved(tmp_path / "run")
    assert any(path.name == "model-best.pth.tar" for path in before)
    assert load_checkpoint(tmp_path / "run" / "state.pt")["progress"]["batches"] == 1
    trainer = make(*opts)
    trainer.bad_at = [(2, 1)]
    stopped(trainer)
    assert saved(tmp_path / "run") == before
    make(*opts).train()
    digests = [json.loads((tmp_path / f / "results.json").read_text())["prompts_sha256"] for f in ("run", "whole")]
    assert digests[0] == digests[1]


def test_as_many_steps_as_allowed_are_skipped_and_counted(make, tmp_path, capsys):
    opts = ("TRAIN.ON_NONFINITE", "skip:2", "TRAIN.CHECKPOINT_MINUTES", "1e-9")
    trainer = make(*opts)
    trainer.bad_at = [(0, 1), (2, 0), (3, 2)]
    message = stopped(trainer)  # the third one is too many
    assert "in epoch 4, batch 3. 2 steps were skipped before." in message
    err = capsys.readouterr().err
    assert "Skipped epoch 1, batch 2: its loss is infinite or NaN (1 of 2)\nentropy: " in err
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in trainer.record.rows)
    # The count survives the stop, the key may be changed, and what was left out is in the results.
    trainer = make("TRAIN.ON_NONFINITE", "skip:3")
    trainer.bad_at = [(3, 2)]
    trainer.train()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["nonfinite_steps"] == 3


def test_a_skipped_step_changes_nothing_but_the_schedule(make, tmp_path):
    trainer = make("TRAIN.ON_NONFINITE", "skip:9", "TRAIN.CHECKPOINT_FREQ", "1", "OPTIM.MAX_EPOCH", "2")
    trainer.bad_at = [(1, 0), (1, 1), (1, 2)]
    trainer.train()
    first, second = (load_checkpoint(tmp_path / "run" / "prompt_learner" / f"model.pth.tar-{n}") for n in (1, 2))
    assert torch.equal(first["state_dict"]["ctx"], second["state_dict"]["ctx"])
    assert str(first["optimizer"]["state"]) == str(second["optimizer"]["state"])
    assert "loss" not in trainer.record.rows[1] and second["scheduler"]["last_epoch"] == 2


def test_a_scaler_and_prograd_skip_bad_steps(make):
    trainer = make("TRAIN.ON_NONFINITE", "skip:3")
    trainer.scaler = torch.amp.GradScaler("cpu")
    before, loss = trainer.model.ctx.clone(), trainer.model(torch.ones(1, 4)).sum()
    trainer.model_backward_and_update(loss * float("nan"))
    trainer.prograd_backward_and_update(loss * float("nan"), loss)
    trainer.prograd_backward_and_update(loss, loss * float("inf"))
    assert trainer.watch.skipped == 3 and torch.equal(trainer.model.ctx, before)
    trainer.model_backward_and_update(trainer.model(torch.ones(1, 4)).sum())
    assert not torch.equal(trainer.model.ctx, before)


@pytest.mark.parametrize("policy", ["stop", "skip:5"])
def test_a_method_that_steps_by_itself_is_stopped_by_the_loss_it_reports(make, tmp_path, policy):
    trainer = make("TRAIN.ON_NONFINITE", policy)
    trainer.forward_backward = lambda batch: {"loss_x": float("inf") if trainer.batch_idx else 1.0, "acc": 1.0}
    with pytest.raises(UserError, match="epoch 1, batch 2" if policy == "stop" else "steps its optimizer itself"):
        trainer.train()
    assert not (tmp_path / "run" / "state.pt").exists()


def test_prompts_that_became_nan_through_their_gradient_are_not_saved(make, tmp_path):
    trainer = make("TEST.FINAL_MODEL", "best_val")
    make_step = trainer.forward_backward

    def forward_backward(batch):
        summary = make_step(batch)
        if (trainer.epoch, trainer.batch_idx) == (1, 2):
            trainer.model.ctx.data[0, 0] = float("nan")
        return summary

    trainer.forward_backward = forward_backward
    assert "ctx: expected finite numbers, got NaN or infinite ones; the loss was finite" in stopped(trainer)
    assert load_checkpoint(tmp_path / "run" / "state.pt")["epoch"] == 1
    assert load_checkpoint(tmp_path / "run" / "prompt_learner" / "model-best.pth.tar")["epoch"] == 1


@pytest.mark.parametrize("minutes", ["0", "1e-9"])
@pytest.mark.parametrize("step", [(1, 0), (1, 1), (1, 2)])
def test_a_loss_checked_a_step_late_is_not_saved_either(make, tmp_path, monkeypatch, step, minutes):
    monkeypatch.setattr(LossWatch, "_checks_late", lambda self, loss: True)
    monkeypatch.setattr(nonfinite, "_DelayedBool", bool)
    trainer = make("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_MINUTES", minutes)
    trainer.bad_at = [step]
    assert f"in epoch {step[0] + 1}, batch {step[1] + 1}." in stopped(trainer)
    state = load_checkpoint(tmp_path / "run" / "state.pt")
    done = state["progress"]["batches"] if state["progress"] else 0
    assert (state["epoch"], done) == ((1, step[1]) if minutes != "0" else (1, 0))
    assert load_checkpoint(tmp_path / "run" / "prompt_learner" / "model-best.pth.tar")["epoch"] == 1


@pytest.mark.gpu
def test_on_a_gpu_the_loss_is_checked_a_step_late_without_waiting():
    watch, loss = LossWatch(), torch.ones((), device="cuda")
    assert not watch.refuses(loss, StepInfo(0, 0))  # the first allocations may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert not watch.refuses(loss, StepInfo(0, 1))
        assert not watch.refuses(loss * float("nan"), StepInfo(0, 2))
        with pytest.raises(NonFiniteLoss, match="nan.* in epoch 1, batch 3"):
            torch.cuda.set_sync_debug_mode("default")  # the message needs the value
            watch.refuses(loss, StepInfo(0, 3))
        assert not watch.refuses(loss * float("inf"), StepInfo(0, 4))
        with pytest.raises(NonFiniteLoss, match="inf.* in epoch 1, batch 5"):
            watch.settle()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_policy_is_stop_or_a_number_of_steps():
    assert (allowed_steps("stop"), allowed_steps("skip:12")) == (0, 12)
    for policy in ("", "skip", "skip:", "skip:0", "skip:-1", "skip:1.5", "Stop"):
        with pytest.raises(UserError, match="TRAIN.ON_NONFINITE: expected stop, or skip:N"):
            allowed_steps(policy)
