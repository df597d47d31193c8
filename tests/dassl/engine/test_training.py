"""A run from start to end: what is called, printed and written."""

import csv
import json
import re
import sys
from collections import Counter

import pytest
import torch
import yaml
from torch import nn

from basics import UserError
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.utils import UnknownName


def test_methods_are_called_in_the_interfaces_order(make, monkeypatch):
    calls = []

    @TRAINER_REGISTRY.register(force=True)
    class Traced(TRAINER_REGISTRY.get("Toy")):
        def check_cfg(self, cfg):
            assert "cfg" not in self.__dict__
            calls.append("check_cfg")

        def build_model(self):
            assert self.num_classes == 3 and not hasattr(self, "evaluator")
            super().build_model()

    def traced(name):
        original = getattr(Traced, name)

        def method(self, *args, **kwargs):
            calls.append(name + (f" {args[0]}" if name == "set_model_mode" else ""))
            return original(self, *args, **kwargs)

        return method

    names = "build_data_loader build_model before_train before_epoch run_epoch forward_backward update_lr after_epoch"
    for name in [*names.split(), "after_train", "test", "set_model_mode", "save_model"]:
        monkeypatch.setattr(Traced, name, traced(name))
    make("OPTIM.MAX_EPOCH", "1", "TEST.FINAL_MODEL", "best_val", kind="Traced").train()
    epoch = ["before_epoch", "run_epoch", "set_model_mode train", *["forward_backward"] * 3, "update_lr", "after_epoch"]
    measure = ["test", "set_model_mode eval"]
    built = ["check_cfg", "build_data_loader", "build_model", "before_train"]
    assert calls == [*built, *epoch, *measure, "save_model", "save_model", "after_train", *measure]


def test_test_only_images_are_never_trained_on(make):
    trainer = make()
    trainer.dm.dataset.test_only = True
    with pytest.raises(UserError, match="is for testing only.*--eval-only --model-dir"):
        trainer.train()
    untrained = make(kind="ToyZeroShot", folder="zero_shot")
    untrained.dm.dataset.test_only = True
    untrained.train()


def test_the_log_has_the_lines_that_tools_parse(make, capsys):
    make("TRAIN.PRINT_FREQ", "2").train()
    lines = capsys.readouterr().out.splitlines()
    progress = [line for line in lines if line.startswith("epoch")]
    number = r"\d+\.\d{4} \(\d+\.\d{4}\)"
    second = r"\d+\.\d{3} \(\d+\.\d{3}\)"
    assert len(progress) == 4  # every second of three batches, in four epochs
    assert re.fullmatch(
        rf"epoch \[1/4\] batch \[2/3\] time {second} data {second} loss {number} acc {number} "
        r"lr 1\.0000e-05 eta \d:\d\d:\d\d",
        progress[0],
    )
    assert lines.index("Finish training") + 1 == lines.index("Finished training")
    after = lines[lines.index("Finished training") :]
    assert after[1:4] == ["Evaluate on the *test* set", "=> result", "* total: 20"]
    assert after[-2].startswith("Toy, trained on") and after[-1].startswith("Elapsed: 0:00:0")


def test_an_epoch_shorter_than_the_print_frequency_prints_every_batch(make, capsys):
    make("TRAIN.PRINT_FREQ", "10", "OPTIM.MAX_EPOCH", "2").train()
    progress = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line[: line.index(" time")] for line in progress] == [
        f"epoch [{epoch}/2] batch [{batch}/3]" for epoch in (1, 2) for batch in (1, 2, 3)
    ]
    assert "lr 1.0000e-01" in progress[2]  # the rate was stepped before the epoch's last line


def test_predictions_csv_has_a_row_per_test_image(make, tmp_path):
    make("TEST.FINAL_MODEL", "best_val").train()  # the validation set is measured too, and leaves no answers
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["impath"] for row in rows] == [f"test/{i}.png" for i in range(20)]
    assert sum(row["label"] == row["predicted"] for row in rows) == round(result["metrics"]["accuracy"] / 100 * 20)
    names = ["ant", "bee", "cat"]
    for row in rows:
        assert row["classname"] == names[int(row["label"])]
        assert row["predicted_classname"] == names[int(row["predicted"])]
        assert 1 / 3 <= float(row["confidence"]) <= 1
    assert result["dataset_dir"] == "/data"


def test_a_method_that_tests_in_its_own_way_leaves_no_predictions(make, monkeypatch, tmp_path):
    trainer = make()

    def test(split=None):
        trainer.evaluator.reset()
        trainer.evaluator.process(torch.eye(3), torch.arange(3))

    monkeypatch.setattr(trainer, "test", test)
    trainer.train()
    assert (tmp_path / "run" / "results.json").is_file() and not (tmp_path / "run" / "predictions.csv").exists()


def test_metrics_csv_has_a_row_per_epoch(make, tmp_path):
    make("TEST.FINAL_MODEL", "best_val").train()
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "acc", "lr", "seconds", "val_accuracy"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["lr"]) for row in rows[:2]] == [1e-5, 0.1]  # in force while the epoch trained
    assert all(0 <= float(row["val_accuracy"]) <= 100 for row in rows)


def test_results_json_reports_the_whole_run(make, tmp_path):
    trainer = make("DATASET.NAME", "Fake", "DATASET.NUM_SHOTS", "4", "MODEL.BACKBONE.NAME", "tiny")
    trainer.train()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    expected = """
        format status task trainer dataset subsample dataset_dir shots train_fraction seed backbone metrics val
        calibration unknowns epochs stopped_early nonfinite_steps trained_parameters gflop prompts_sha256 draw_hash
        data_sha256 weights_sha256 model_dir load_epoch config versions device processes threads linear
        changed_on_resume seconds peak_memory_mib
    """
    assert list(results) == expected.split()
    expected = {"format": 1, "status": "done", "task": "train", "trainer": "Toy", "dataset": "Fake", "shots": 4}
    expected |= {"subsample": "all", "seed": 1, "backbone": "tiny", "val": None, "epochs": 4, "draw_hash": "ab12"}
    expected |= dict.fromkeys(("gflop", "linear", "weights_sha256", "model_dir", "load_epoch"))
    expected["trained_parameters"] = 13
    assert expected.items() <= results.items()
    assert results["metrics"]["n"] == 20
    assert sum(of_class["n"] for of_class in results["metrics"]["per_class"].values()) == 20
    assert results["config"]["OPTIM"]["LR"] == 0.1
    assert set(results["versions"]) == {"dassl", "commit", "torch", "torchvision", "python"}
    assert results["seconds"]["train"] == pytest.approx(4 * results["seconds"]["per_epoch"])
    assert results["peak_memory_mib"] > 50
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config == results["config"]


def test_training_raises_the_accuracy(make):
    trainer = make("OPTIM.MAX_EPOCH", "20")
    before = trainer.test()
    trainer.train()
    assert trainer.test() > max(before, 60)


def test_best_val_is_kept_deployed_and_reported(make, tmp_path):
    trainer = make("TEST.FINAL_MODEL", "best_val", "OPTIM.LR", "3.0", "OPTIM.MAX_EPOCH", "6")
    trainer.train()
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        measured = [float(row["val_accuracy"]) for row in csv.DictReader(file)]
    best = torch.load(tmp_path / "run" / "prompt_learner" / "model-best.pth.tar", weights_only=True)
    assert best["epoch"] == measured.index(max(measured)) + 1 < 6, "the test needs a best epoch that is not the last"
    assert best["val_result"] == max(measured) == trainer.best_result
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["val"]["accuracy"] == max(measured)
    assert torch.equal(trainer.model.ctx, best["state_dict"]["ctx"])


def test_best_val_without_a_validation_set_is_refused(make, monkeypatch):
    monkeypatch.setattr(sys.modules[make.__module__].FakeDataManager, "has_val", False)
    with pytest.raises(UserError, match="got best_val; the dataset .* has no validation images"):
        make("TEST.FINAL_MODEL", "best_val")


def test_without_a_test_the_metrics_are_empty(make, tmp_path, capsys):
    make("TEST.NO_TEST", "True").train()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["metrics"] is None
    assert "=> result" not in capsys.readouterr().out


def test_a_method_without_a_trained_model_is_tested_only(make, tmp_path, capsys):
    make(kind="ToyZeroShot").train()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["epochs"], results["trained_parameters"], results["metrics"]["n"]) == (0, 0, 20)
    assert "=> result" in capsys.readouterr().out
    assert not (tmp_path / "run" / "state.pt").exists()


def test_seed_zero_is_a_seed_and_a_negative_one_is_sampled(make, capsys):
    assert make("SEED", "0").cfg.SEED == 0
    assert "sampled" not in capsys.readouterr().err
    seed = make("SEED", "-1").cfg.SEED
    assert seed >= 0
    assert capsys.readouterr().err == f"No seed given; sampled: {seed}\n"


def test_the_sampler_gets_the_epoch_whatever_a_method_overrides(make):
    class Sampler(torch.utils.data.SequentialSampler):
        epochs = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    trainer = make("OPTIM.MAX_EPOCH", "3")
    data = trainer.train_loader_x.dataset
    trainer.train_loader_x = torch.utils.data.DataLoader(data, batch_size=4, sampler=Sampler(data))
    trainer.run_epoch = trainer.before_epoch = trainer.after_epoch = lambda: None
    trainer.train()
    assert Sampler.epochs == [0, 1, 2]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("TEST.FINAL_MODEL", "best"), "TEST.FINAL_MODEL: .*last_step, best_val"),
        (("TEST.SPLIT", "train"), "TEST.SPLIT: .*test, val"),
        (("TRAIN.PRINT_FREQ", "0"), "TRAIN.PRINT_FREQ: expected at least 1, got 0"),
        (("TRAIN.CHECKPOINT_MINUTES", "-1"), "TRAIN.CHECKPOINT_MINUTES: expected at least 0, got -1"),
        (("TRAIN.ON_NONFINITE", "skip"), "TRAIN.ON_NONFINITE: expected stop, or skip:N"),
        (("TRAIN.ON_NONFINITE", "skip:0"), "TRAIN.ON_NONFINITE: expected stop, or skip:N"),
    ],
)
def test_impossible_settings_are_refused_before_training(make, opts, message):
    with pytest.raises(UserError, match=message):
        make(*opts)


def test_an_unknown_method_is_refused_with_the_nearest(make):
    with pytest.raises(UnknownName, match='unknown trainer "Toyy"[.] Did you mean "Toy"'):
        make(kind="Toyy")


def test_only_registered_modules_are_switched(make):
    trainer = make()
    trainer.other = nn.Dropout()
    trainer.set_model_mode("test")
    assert (trainer.model.training, trainer.other.training) == (False, True)
    trainer.set_model_mode("train", "prompt_learner")
    assert trainer.model.training
    with pytest.raises(KeyError):
        trainer.set_model_mode("validate")


def test_names_are_registered_once_and_after_init(make):
    trainer = make()
    with pytest.raises(AssertionError, match="already registered"):
        trainer.register_model("prompt_learner", nn.Linear(1, 1))
    with pytest.raises(AssertionError, match='no model named "x"'):
        trainer.get_model_names("x")
    with pytest.raises(AttributeError, match=r"before super\(\).__init__"):
        TrainerX.__new__(TrainerX).register_model("x")


def test_steps_do_not_change_a_model_without_optimizer(make):
    trainer = make()
    trainer.register_model("frozen", nn.Linear(1, 1))
    trainer.model_backward_and_update(trainer.model(torch.ones(1, 4)).sum())
    trainer.update_lr()
    assert trainer.get_model_names() == ["prompt_learner", "frozen"]
    assert trainer.get_current_lr("frozen") is None


def test_prograd_removes_what_opposes_the_general_direction(make):
    trainer = make("OPTIM.MOMENTUM", "0", "OPTIM.WEIGHT_DECAY", "0", "OPTIM.WARMUP_EPOCH", "0")

    def step(a, b, lambda_):
        trainer.model.ctx.data.zero_()
        weights = [torch.zeros(4, 3), torch.zeros(4, 3)]
        for weight, values in zip(weights, (a, b), strict=True):
            weight[0] = torch.tensor(values)
        losses = [(trainer.model.ctx * weight).sum() + trainer.model.scale.sum() for weight in weights]
        trainer.prograd_backward_and_update(*losses, lambda_=lambda_)
        return (-trainer.model.ctx[0] / 0.1).tolist()

    assert step([1.0, 2.0, 0.0], [1.0, 0.0, 0.0], 1) == pytest.approx([1.0, 2.0, 0.0])
    assert step([-1.0, 2.0, 0.0], [2.0, 0.0, 0.0], 1) == pytest.approx([0.0, 2.0, 0.0])
    assert step([-1.0, 2.0, 0.0], [2.0, 0.0, 0.0], 0.5) == pytest.approx([-0.5, 2.0, 0.0])


def test_a_gradient_scaler_takes_part_in_the_step(make):
    trainer = make("OPTIM.WARMUP_EPOCH", "0")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    other = make("OPTIM.WARMUP_EPOCH", "0", folder="other")
    images = torch.ones(2, 4)
    for t in (trainer, other):
        t.model_backward_and_update(t.model(images).square().mean())
    assert torch.allclose(trainer.model.ctx, other.model.ctx)
    trainer.model_backward_and_update(trainer.model(images).square().mean() * 1e38)  # overflows when scaled
    assert trainer.scaler.get_scale() == 512.0
    assert torch.isfinite(trainer.model.ctx).all()


def test_tensorboard_is_written_only_on_request(make, tmp_path):
    pytest.importorskip("tensorboard", reason="need tensorboard (pip install tensorboard)")
    trainer = make("OPTIM.MAX_EPOCH", "1", folder="off")
    trainer.train()
    assert not (tmp_path / "off" / "tensorboard").exists()
    trainer = make("OPTIM.MAX_EPOCH", "1", "TRAIN.TENSORBOARD", "True", folder="on")
    tags = Counter()
    write = trainer.write_scalar
    trainer.write_scalar = lambda tag, *args: (tags.update([tag]), write(tag, *args))
    trainer.train()
    assert tags == {"train/loss": 3, "train/acc": 3, "train/lr": 3, **dict.fromkeys(TEST_TAGS, 1)}
    assert list((tmp_path / "on" / "tensorboard").iterdir())


TEST_TAGS = ("test/accuracy", "test/error_rate", "test/macro_f1")


def test_missing_tensorboard_is_reported(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        make("TRAIN.TENSORBOARD", "True").train()
