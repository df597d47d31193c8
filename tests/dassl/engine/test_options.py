"""Options of the training that are off by default: early stopping, clipping, accumulation, the loss, trackers."""

import csv
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from toy_runs import kill, last_tensors, results_of, rows_of

from basics import UserError
from dassl.engine import compat
from dassl.engine.losses import CrossEntropy, balanced_weights
from dassl.engine.lr_finder import find_lr, suggest

EVERY_STEP = ("TRAIN.CHECKPOINT_MINUTES", "1e-9")
PATIENT = ("TEST.FINAL_MODEL", "best_val", "TRAIN.PATIENCE", "1", "OPTIM.MAX_EPOCH", "9")


def same_run(first, second):
    return results_of(first) == results_of(second) and rows_of(first) == rows_of(second)


# ---- early stopping


def test_a_run_stops_after_epochs_without_a_better_validation(make, tmp_path, monkeypatch):
    accuracies = iter([50, 60, 60, 90])
    trainer = make(*PATIENT)
    measure = trainer.test
    monkeypatch.setattr(trainer, "test", lambda split=None: [measure(split), next(accuracies) if split else 0][1])
    trainer.train()
    results = results_of(tmp_path / "run")
    assert [row["val_accuracy"] for row in rows_of(tmp_path / "run")] == ["50", "60", "60"]
    assert (results["epochs"], results["stopped_early"]) == (3, True)
    assert (tmp_path / "run" / "prompt_learner" / "model.pth.tar-3").is_file()  # the last epoch's


def test_a_killed_run_stops_early_at_the_same_epoch(make, tmp_path):
    make(*PATIENT, folder="whole").train()
    epochs = results_of(tmp_path / "whole")["epochs"]
    assert epochs < 9
    kill(make(*PATIENT, folder="killed"), epochs - 1, 1)
    last = make(*PATIENT, folder="killed")
    last.after_train = lambda: None  # killed in the test
    last.train()
    make(*PATIENT, folder="killed").train()
    assert same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("opts", [(), ("TEST.FINAL_MODEL", "best_val", "TEST.NO_TEST", "True")])
def test_early_stopping_needs_validation(make, opts):
    with pytest.raises(UserError, match="TRAIN.PATIENCE: expected TEST.FINAL_MODEL best_val and TEST.NO_TEST False"):
        make("TRAIN.PATIENCE", "2", *opts)


# ---- steps


def step(trainer, *losses):
    """Make steps on these multiples of the learner's sum; return the sum of the changes of ctx."""
    before = trainer.model.ctx.detach().clone()
    trainer.num_batches = len(losses)
    for trainer.batch_idx, factor in enumerate(losses):
        trainer.open_step()
        trainer.model_backward_and_update(factor * trainer.model.ctx.sum())
    return (trainer.model.ctx.detach() - before).sum()


def test_a_step_on_accumulated_batches_follows_their_mean_gradient(make):
    opts = ("OPTIM.WARMUP_EPOCH", "0", "OPTIM.MOMENTUM", "0.", "OPTIM.WEIGHT_DECAY", "0.", "OPTIM.ACCUMULATE", "2")
    one = -0.1 * 12  # the step of a loss with the factor 1, on all 4 x 3 elements
    torch.testing.assert_close(step(make(*opts), 1.0, 3.0), torch.tensor(2 * one))
    torch.testing.assert_close(step(make(*opts, folder="odd"), 1.0, 3.0, 5.0), torch.tensor(7 * one))


def test_a_skipped_batch_leaves_the_gradients_of_the_others(make):
    opts = ("OPTIM.WARMUP_EPOCH", "0", "OPTIM.MOMENTUM", "0.", "OPTIM.WEIGHT_DECAY", "0.", "OPTIM.ACCUMULATE", "2")
    trainer = make(*opts, "TRAIN.ON_NONFINITE", "skip:4")
    torch.testing.assert_close(step(trainer, 3.0, float("nan")), torch.tensor(-0.1 * 12 * 1.5))
    torch.testing.assert_close(step(trainer, float("nan"), 3.0), torch.tensor(-0.1 * 12 * 1.5))
    assert step(trainer, float("nan"), float("nan")) == 0


def test_a_killed_run_with_accumulation_and_clipping_ends_in_the_same_bytes(make, tmp_path):
    opts = ("OPTIM.ACCUMULATE", "2", "OPTIM.CLIP_NORM", "0.05", *EVERY_STEP)
    make(*opts, folder="whole").train()
    for epoch, batch in ((1, 1), (2, 2)):  # in the middle of a step, and before a step of one batch
        kill(make(*opts, folder="killed"), epoch, batch)
    make(*opts, folder="killed").train()
    assert same_run(tmp_path / "killed", tmp_path / "whole")
    whole, killed = (last_tensors(tmp_path / folder) for folder in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_stop_waits_for_all_batches_of_a_step(make):
    trainer = make("OPTIM.ACCUMULATE", "2")
    trainer.forward_backward, forward = (lambda batch: [forward(batch), request(trainer)][0]), trainer.forward_backward

    def request(trainer):
        trainer.signals.requested = 2

    with pytest.raises(KeyboardInterrupt, match="after epoch 1, batch 2"):
        trainer.train()


@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_are_clipped_to_the_norm(make, scaled):
    opts = ("OPTIM.WARMUP_EPOCH", "0", "OPTIM.MOMENTUM", "0.", "OPTIM.WEIGHT_DECAY", "0.", "OPTIM.CLIP_NORM", "2.")
    trainer = make(*opts)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if scaled else None
    torch.testing.assert_close(step(trainer, 100.0), torch.tensor(-0.1 * 2 * 12**0.5))  # its norm is 100 sqrt(12)
    torch.testing.assert_close(step(trainer, 0.1), torch.tensor(-0.1 * 0.1 * 12))


def test_methods_that_step_by_themselves_refuse_clipping_and_accumulation(make):
    trainer = make("OPTIM.CLIP_NORM", "1.")
    with pytest.raises(UserError, match="OPTIM.CLIP_NORM, OPTIM.ACCUMULATE: expected 0 and 1, because Toy steps its"):
        compat.check_reported_losses(trainer, {"loss": 1.0})
    trainer = make("OPTIM.ACCUMULATE", "2", folder="other")
    with pytest.raises(UserError, match="OPTIM.ACCUMULATE: expected 1 with Toy"):
        trainer.prograd_backward_and_update(trainer.model.ctx.sum(), trainer.model.ctx.sum())


@pytest.mark.parametrize(
    "option",
    [
        ("TRAIN.LABEL_SMOOTHING", "0.1"),
        ("TRAIN.CLASS_WEIGHTS", "balanced"),
        ("TRAIN.MIXUP", "0.2"),
        ("TRAIN.CUTMIX", "1."),
    ],
)
def test_a_method_with_a_loss_of_its_own_refuses_options_of_the_loss(make, option):
    with pytest.raises(UserError, match=f"{option[0]}: expected .* with Toy, whose training does not use it, got"):
        make(*option)


# ---- the loss


def test_the_loss_follows_smoothing_and_weights():
    logits, labels = torch.tensor([[2.0, 0, 1], [0, 1, 0]]), torch.tensor([0, 2])
    assert torch.equal(CrossEntropy()(logits, labels), F.cross_entropy(logits, labels))
    own = -logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    spread = -logits.log_softmax(dim=1).mean(dim=1)
    torch.testing.assert_close(CrossEntropy(0.3)(logits, labels), (0.7 * own + 0.3 * spread).mean())
    weights = torch.tensor([1.0, 5, 3])
    expected = (own * weights[labels]).sum() / weights[labels].sum()
    torch.testing.assert_close(CrossEntropy(weights=weights)(logits, labels), expected)


def test_balanced_weights_give_classes_equal_shares_of_the_loss():
    weights = balanced_weights([0, 0, 0, 2], 4)
    torch.testing.assert_close(weights, torch.tensor([4 / 6, 0, 2, 0]))


# ---- the learning-rate test


def test_the_learning_rate_test_proposes_a_rate_and_leaves_the_folder_free(make, tmp_path, capsys):
    trainer = make()
    make_step = trainer.forward_backward
    trainer.forward_backward = lambda batch: make_step(batch) | {"loss": 1.0 if trainer.batch_idx < 20 else 0.5}
    found = find_lr(trainer, steps=40)
    with open(tmp_path / "run" / "lr_finder.csv", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert rows[0]["lr"] == 1e-6 and found == suggest(rows)
    assert f"Learning rate to try: {found:.2g} (--lr {found:.2g})" in capsys.readouterr().out
    assert not (tmp_path / "run" / "state.pt").exists()
    make().train()  # the folder is free for the run itself
    with pytest.raises(UserError, match="got one whose results would be overwritten"):
        find_lr(make())


def test_a_tenth_of_the_rate_with_the_lowest_loss_is_proposed():
    rows = [{"lr": 0.01, "loss": loss, "smoothed": loss} for loss in [0.1] + [2.0] * 9]  # batches differ by chance
    falling = [*rows, *({"lr": lr, "smoothed": loss} for lr, loss in ((0.2, 1.5), (0.4, 0.5), (0.8, 9.0)))]
    assert suggest(falling) == pytest.approx(0.04)
    with pytest.raises(UserError, match="expected a loss that falls"):
        suggest([*rows, {"lr": 0.2, "smoothed": 3.0}])


def test_the_learning_rate_test_ends_when_the_loss_diverges(make, tmp_path):
    trainer = make("OPTIM.WARMUP_EPOCH", "0")
    make_step = trainer.forward_backward
    losses = [1.0] * 10 + [0.1] * 10 + [50.0] * 80
    trainer.forward_backward = lambda batch: make_step(batch) | {"loss": losses[trainer.batch_idx]}
    find_lr(trainer)
    assert len((tmp_path / "run" / "lr_finder.csv").read_text().splitlines()) == 1 + 21


def test_a_method_without_steps_has_no_learning_rate(make):
    with pytest.raises(UserError, match="--find-lr: expected a method that makes steps, got ToyZeroShot"):
        find_lr(make(kind="ToyZeroShot"))


# ---- trackers


class Recorder:
    """Stands in for the packages wandb, mlflow, and trackio: keeps the calls of its functions."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            methods = {method: getattr(self, method) for method in ("log", "finish", "define_metric") if name == "init"}
            return SimpleNamespace(id="run7", info=SimpleNamespace(run_id="run7"), **methods)

        return call

    def named(self, name):
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.fixture
def package(monkeypatch):
    def stand_in(name):
        found = Recorder()
        monkeypatch.setitem(sys.modules, name, found)
        return found

    for variable in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", "")  # restored afterward
    return stand_in


def track(make, kind):
    make("TRAIN.TRACKER", kind, "OPTIM.MAX_EPOCH", "1").train()


def test_wandb_gets_the_numbers_offline_and_continues_its_run(make, package, tmp_path):
    wandb = package("wandb")
    make("TRAIN.TRACKER", "wandb", "OPTIM.MAX_EPOCH", "1").train()
    [(_, started)] = wandb.named("init")
    assert (started["mode"], started["id"], started["name"]) == ("offline", None, "-Toy-seed1")
    assert started["dir"] == str(tmp_path / "run" / "wandb") and started["config"]["OPTIM.MAX_EPOCH"] == 1
    tags = [tag for (numbers,), _ in wandb.named("log") for tag in numbers]
    assert tags.count("train/loss") == 3 and tags.count("test/accuracy") == 1 and tags.count("train/step") == 9
    assert len(wandb.named("finish")) == 1
    track(make, "wandb")
    assert wandb.named("init")[1][1]["id"] == "run7"


def test_mlflow_gets_the_numbers_in_the_folder_and_continues_its_run(make, package, tmp_path):
    mlflow = package("mlflow")
    track(make, "mlflow")
    track(make, "mlflow")
    assert mlflow.named("set_tracking_uri")[0][0] == (f"sqlite:///{tmp_path / 'run' / 'mlflow' / 'mlflow.db'}",)
    assert [kwargs["run_id"] for _, kwargs in mlflow.named("start_run")] == [None, "run7"]
    [((settings,), _)] = mlflow.named("log_params")
    assert settings["OPTIM.MAX_EPOCH"] == 1
    steps = [kwargs["step"] for (tag, _), kwargs in mlflow.named("log_metric") if tag == "train/loss"]
    assert steps == [0, 1, 2] and len(mlflow.named("end_run")) == 2


def test_trackio_gets_the_numbers_and_continues_its_run(make, package):
    trackio = package("trackio")
    track(make, "trackio")
    [(_, started)] = trackio.named("init")
    assert (started["name"], started["resume"]) == ("-Toy-seed1", "allow")
    assert [numbers for (numbers,), _ in trackio.named("log") if "test/accuracy" in numbers]
    assert len(trackio.named("finish")) == 1


@pytest.mark.parametrize("kind", ["wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_reported_before_the_training(make, monkeypatch, tmp_path, kind):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(UserError, match=rf'TRAIN.TRACKER: expected .* Run pip install "promptlearn-clip\[{kind}\]"'):
        track(make, kind)
    assert not (tmp_path / "run" / "state.pt").exists()


def test_an_unknown_tracker_is_refused(make):
    with pytest.raises(UserError, match="TRAIN.TRACKER: expected one of .*, got 'wandbb'. Did you mean 'wandb'"):
        make("TRAIN.TRACKER", "wandbb")
