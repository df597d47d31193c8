"""Checkpoints, and resuming after a stop."""

import json
import os
import shutil
import signal
import zipfile

import pytest
import torch
from toy_runs import kill, last_tensors, results_of, rows_of

from basics import MissingFile, Stopped, UserError
from dassl.engine.checkpoints import load_trained, prompts_sha256, trained_tensors
from dassl.engine.run_folder import FolderTaken
from dassl.utils import load_checkpoint, save_tensors


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("final", ["last_step", "best_val"])
@pytest.mark.parametrize("minutes", ["0", "1e-9"])  # saved after each epoch, after each step
@pytest.mark.parametrize("moments", [[(0, 1)], [(1, 0)], [(1, 2), (3, 1)]])
def test_a_killed_and_resumed_run_ends_in_the_same_numbers(make, tmp_path, optimizer, final, minutes, moments):
    opts = ("OPTIM.NAME", optimizer, "TEST.FINAL_MODEL", final, "TRAIN.CHECKPOINT_MINUTES", minutes)
    make(*opts, folder="whole").train()
    for moment in moments:
        kill(make(*opts, folder="killed"), *moment)
        assert not (tmp_path / "killed" / "results.json").exists()
    make(*opts, folder="killed").train()
    whole, killed = last_tensors(tmp_path / "whole"), last_tensors(tmp_path / "killed")
    assert list(whole) == list(killed)
    assert all(whole[key].numpy().tobytes() == killed[key].numpy().tobytes() for key in whole)
    assert results_of(tmp_path / "whole") == results_of(tmp_path / "killed")
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "killed")


def test_a_run_resumes_in_the_middle_of_an_epoch(make, tmp_path, capsys):
    kill(make("TRAIN.CHECKPOINT_MINUTES", "1e-9"), 1, 2)
    capsys.readouterr()
    make("TRAIN.CHECKPOINT_MINUTES", "60").train()
    out, err = capsys.readouterr()
    assert 'state.pt": 1 epochs and 2 batches are done' in err
    assert "epoch [2/4] batch [2/3]" not in out and "epoch [2/4] batch [3/3]" in out


STOPS = [((0, 0), "SIGTERM"), ((1, 1), "SIGINT"), ((2, 2), "SIGHUP"), ((1, 0), "SIGUSR1"), ((0, 1), "SIGXCPU")]


@pytest.mark.parametrize(("step", "name"), STOPS)
def test_a_stopped_run_finishes_its_step_and_resumes_with_the_next(make, tmp_path, step, name):
    signum = signal.Signals[name]
    make(folder="whole").train()
    trainer = make(folder="stopped")

    def stop_within(batch):
        if (trainer.epoch, trainer.batch_idx) == step:
            os.kill(os.getpid(), signum)
            if name == "SIGXCPU":  # it comes every second
                os.kill(os.getpid(), signum)
        return type(trainer).forward_backward(trainer, batch)

    trainer.forward_backward = stop_within
    with pytest.raises(Stopped, match=f"by {name} after epoch {step[0] + 1}, batch {step[1] + 1}") as stop:
        trainer.train()
    assert stop.value.status == 128 + signum
    again = make(folder="stopped")
    again.killed_at = step
    again.train()  # past that step
    assert results_of(tmp_path / "whole") == results_of(tmp_path / "stopped")
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "stopped")


def test_a_signal_after_the_save_decision_waits_for_the_next_step(make, tmp_path, monkeypatch):
    trainer = make()
    save_if_due = trainer.record.save_if_due

    def decide_then_signal(stop):
        save_if_due(stop)
        trainer.signals.requested = signal.SIGTERM

    monkeypatch.setattr(trainer.record, "save_if_due", decide_then_signal)
    with pytest.raises(Stopped, match="after epoch 1, batch 2"):
        trainer.train()
    assert (tmp_path / "run" / "state.pt").is_file()


@pytest.mark.parametrize(("split", "state"), [("val", "after epoch 1$"), ("test", "in the test after the training")])
def test_a_run_stopped_during_a_test_ends_in_the_same_numbers(make, tmp_path, split, state):
    opts = ("TEST.FINAL_MODEL", "best_val")
    make(*opts, folder="whole").train()
    trainer = make(*opts, folder="stopped")

    def stop_within(images):
        if trainer.tested_split == split:
            os.kill(os.getpid(), signal.SIGTERM)
            trainer.tested_split = None
        return trainer.model(images)

    def test(split=None):
        trainer.tested_split = split or "test"
        return type(trainer).test(trainer, split)

    trainer.model_inference, trainer.test = stop_within, test
    with pytest.raises(Stopped, match=state):
        trainer.train()
    make(*opts, folder="stopped").train()
    assert results_of(tmp_path / "whole") == results_of(tmp_path / "stopped")


def test_the_best_epoch_before_a_stop_is_kept(make, tmp_path):
    opts = ("TEST.FINAL_MODEL", "best_val", "OPTIM.LR", "3.0", "OPTIM.MAX_EPOCH", "6")
    make(*opts, folder="whole").train()
    best = load_checkpoint(tmp_path / "whole" / "prompt_learner" / "model-best.pth.tar")["epoch"]
    assert best < 6, "the test needs a best epoch that is not the last"
    kill(make(*opts, folder="killed"), 5, 0)
    make(*opts, folder="killed").train()
    assert results_of(tmp_path / "whole") == results_of(tmp_path / "killed")


def test_the_log_reports_a_resumed_run(make, tmp_path, capsys):
    kill(make(), 2, 0)
    assert "No checkpoint found, train from scratch" in capsys.readouterr().out
    make().train()
    out, err = capsys.readouterr()
    assert f'Resumed from "{tmp_path / "run" / "state.pt"}": 2 epochs are done' in err
    assert "epoch [2/4]" not in out and "epoch [3/4]" in out


def test_a_finished_run_is_tested_again_and_not_trained(make, tmp_path):
    make().train()
    before = results_of(tmp_path / "run")
    make().train()
    assert results_of(tmp_path / "run") == before


def test_resume_continues_a_run_in_another_folder(make, tmp_path):
    make(folder="whole").train()
    kill(make(folder="first"), 2, 0)
    resume = ("RESUME", str(tmp_path / "first"))
    kill(make(*resume, folder="second"), 3, 0)
    assert len(rows_of(tmp_path / "second")) == 3
    make(*resume, folder="second").train()
    assert prompts(tmp_path / "second") == prompts(tmp_path / "whole")
    make("RESUME", str(tmp_path / "second"), folder="third").train()  # of which nothing is left to train
    assert rows_of(tmp_path / "third") == rows_of(tmp_path / "second") == rows_of(tmp_path / "whole")
    with pytest.raises(UserError, match="RESUME: expected a folder that contains state.pt, got .*fourth"):
        make("RESUME", str(tmp_path / "fourth"), folder="fifth").train()


def test_the_best_model_of_a_resumed_folder_is_copied(make, tmp_path):
    opts = ("TEST.FINAL_MODEL", "best_val", "OPTIM.LR", "3.0", "OPTIM.MAX_EPOCH", "6")
    make(*opts, folder="whole").train()
    kill(make(*opts, folder="first"), 5, 0)
    make(*opts, "RESUME", str(tmp_path / "first"), folder="second").train()
    best = "prompt_learner/model-best.pth.tar"
    assert load_checkpoint(tmp_path / "second" / best)["epoch"] < 6, "the test needs a best epoch before the stop"
    assert (tmp_path / "second" / best).read_bytes() == (tmp_path / "whole" / best).read_bytes()
    assert prompts(tmp_path / "second") == prompts(tmp_path / "whole")


@pytest.mark.parametrize("what", ["draw_hash", "weights_sha256"])
def test_a_run_does_not_resume_with_other_images_or_weights(make, tmp_path, what):
    kill(make(), 2, 0)
    trainer = make()
    trainer.weights_sha256 = "1234"
    trainer.train()  # nothing to compare with
    other = make()
    setattr(other if what == "weights_sha256" else other.dm.dataset, what, "other")
    with pytest.raises(FolderTaken, match="expected a run on this data, got one for which"):
        other.train()


def prompts(folder):
    return json.loads((folder / "results.json").read_text())["prompts_sha256"]


def test_another_config_is_refused_and_the_run_stays_unchanged(make, tmp_path):
    kill(make(), 2, 0)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError) as error:
        make("OPTIM.LR", "0.2", "DATASET.NUM_SHOTS", "2").train()
    lines = str(error.value).splitlines()
    assert lines[1:3] == ["DATASET.NUM_SHOTS: -1 there, 2 now", "OPTIM.LR: 0.1 there, 0.2 now"]
    assert lines[3].startswith("Choose another --output-dir, or delete that folder")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_keys_without_influence_on_the_numbers_may_change(make, tmp_path):
    make(folder="whole").train()
    kill(make(), 2, 0)
    make("DATALOADER.NUM_WORKERS", "0", "TRAIN.PRINT_FREQ", "1", "TRAIN.CHECKPOINT_FREQ", "1").train()
    assert prompts(tmp_path / "run") == prompts(tmp_path / "whole")


def test_resume_false_refuses_a_folder_with_a_run(make):
    make("TRAIN.RESUME", "False", "OPTIM.MAX_EPOCH", "1").train()
    with pytest.raises(UserError, match="expected a folder without a run, because TRAIN.RESUME is False"):
        make("TRAIN.RESUME", "False", "OPTIM.MAX_EPOCH", "1").train()


@pytest.mark.parametrize("damage", ["empty", "cut off", "other"])
def test_a_damaged_state_is_named_and_not_overwritten(make, tmp_path, damage):
    kill(make(), 2, 0)
    state = tmp_path / "run" / "state.pt"
    if damage == "other":
        torch.save({"a": 1}, state)
    else:
        state.write_bytes(b"" if damage == "empty" else state.read_bytes()[:-300])
    before = state.read_bytes()
    with pytest.raises(UserError, match=r"state\.pt"):
        make().train()
    assert state.read_bytes() == before


def test_checkpoints_are_written_at_the_end_and_every_n_epochs(make, tmp_path):
    make("TRAIN.CHECKPOINT_FREQ", "2", "OPTIM.MAX_EPOCH", "5").train()
    folder = tmp_path / "run" / "prompt_learner"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["checkpoint", "model.pth.tar-2", "model.pth.tar-4", "model.pth.tar-5"]
    assert (folder / "checkpoint").read_text() == "model.pth.tar-5\n"


def test_a_checkpoint_holds_only_what_is_trained(make, tmp_path):
    make().train()
    checkpoint = torch.load(tmp_path / "run" / "prompt_learner" / "model.pth.tar-4", weights_only=True)
    assert list(checkpoint) == ["state_dict", "epoch", "optimizer", "scheduler", "val_result"]
    assert sorted(checkpoint["state_dict"]) == ["ctx", "scale", "steps", "token_prefix"]
    assert checkpoint["epoch"] == 4
    assert checkpoint["state_dict"]["steps"] == 12


def test_a_view_does_not_bring_its_base_into_the_file(make, tmp_path):
    trainer = make()
    trainer.model.token_prefix = torch.zeros(1000, 1000)[:3, :1]
    trainer.train()
    assert (tmp_path / "run" / "state.pt").stat().st_size < 100_000


def trained(make):
    trainer = make(folder="trained")
    trainer.train()
    return trainer


def test_evaluation_loads_the_last_checkpoint_and_writes_results(make, tmp_path):
    trainer = trained(make)
    other = make(folder="test", kind="Toy")
    other.evaluate(tmp_path / "trained")
    assert torch.equal(other.model.ctx, trainer.model.ctx)
    results = results_of(tmp_path / "test")
    assert (results["task"], results["epochs"], results["load_epoch"]) == ("eval", 0, 4)
    assert results["model_dir"] == str(tmp_path / "trained")
    assert results["prompts_sha256"] == prompts(tmp_path / "trained")


def test_evaluation_does_not_overwrite_the_results_of_a_training_run(make, tmp_path):
    trained(make)
    with pytest.raises(UserError, match="expected a folder without a training run.*another --output-dir"):
        make(folder="trained").evaluate(tmp_path / "trained")


def test_the_best_checkpoint_is_the_default_and_an_epoch_can_be_chosen(make, tmp_path):
    opts = ("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", "1")
    make(*opts, folder="trained").train()
    other = make(folder="test")
    best = load_checkpoint(tmp_path / "trained" / "prompt_learner" / "model-best.pth.tar")["epoch"]
    assert other.load_model(tmp_path / "trained") == best
    assert other.load_model(tmp_path / "trained", epoch=2) == 2
    assert torch.equal(other.model.ctx, last_tensors(tmp_path / "trained", 2)["ctx"])


@pytest.mark.parametrize(
    ("path", "epoch"),
    [
        ("trained", 4),
        ("trained/prompt_learner", 4),
        ("trained/prompt_learner/model.pth.tar-2", 2),
        ("trained/prompt_learner/checkpoint", 4),
        ("trained/results.json", 4),
        ("alone.pth", 2),
        ("renamed", 2),
        ("model", 4),
    ],
)
def test_a_model_is_found_by_what_people_point_at(make, tmp_path, path, epoch):
    make("TRAIN.CHECKPOINT_FREQ", "2", folder="trained").train()
    expected = last_tensors(tmp_path / "trained", epoch)["ctx"]
    (tmp_path / "renamed").mkdir()
    for copy in ("alone.pth", "renamed/model.pth.tar-2"):
        shutil.copy(tmp_path / "trained" / "prompt_learner" / "model.pth.tar-2", tmp_path / copy)
    (tmp_path / "model").mkdir()  # of `dassl fit`
    (tmp_path / "model" / "run").symlink_to(tmp_path / "trained")
    other = make(folder="test")
    other.evaluate(str(tmp_path / path))
    assert torch.equal(other.model.ctx, expected)
    results = json.loads((tmp_path / "test" / "results.json").read_text())
    assert results["load_epoch"] == epoch
    if path.startswith("trained"):
        assert results["model_dir"] == str(tmp_path / "trained")


def test_what_is_no_model_is_described(make, tmp_path):
    make("TRAIN.CHECKPOINT_FREQ", "2", folder="runs/deep/trained").train()
    trained = tmp_path / "runs" / "deep" / "trained"
    make(folder="tested").evaluate(trained)
    for name in ("empty", "foreign/photos", "saved", "other/adapter"):
        (tmp_path / name).mkdir(parents=True)
    for file in ("saved/model.safetensors", "other/adapter/model.pth.tar-1"):
        (tmp_path / file).touch()
    shutil.copytree(trained, tmp_path / "without")
    shutil.rmtree(tmp_path / "without" / "prompt_learner")
    found = {
        "nowhere": 'got ".*nowhere", which does not exist',
        "empty": "empty: an empty folder",
        "foreign": "foreign: a folder with photos",
        "runs": r"runs: a folder of 1 runs \(deep/trained\); name one of them",
        "tested": "tested: a run that tested the model in .*deep/trained; name that one",
        "without": "without: a run without checkpoints",
        "saved": "saved: a saved model, for `dassl predict`, without its training",
        "other": "other: a run with checkpoints of adapter; name one of this method",
    }
    for name, message in found.items():
        with pytest.raises(UserError, match=f"^--model-dir: expected a trained run with .*prompt_learner.*{message}"):
            make(folder="test").evaluate(tmp_path / name)
    with pytest.raises(UserError, match="--load-epoch: expected 2, that of .*tar-2, got 4"):
        make(folder="test").evaluate(trained / "prompt_learner" / "model.pth.tar-2", epoch=4)


def test_without_a_directory_nothing_is_loaded(make, capsys):
    assert make().load_model("") is None
    assert "loading nothing" in capsys.readouterr().out


def test_a_missing_epoch_lists_the_available_ones(make, tmp_path):
    make("TRAIN.CHECKPOINT_FREQ", "2", folder="trained").train()
    with pytest.raises(MissingFile, match=r"a checkpoint of epoch 9, got epochs 2, 4\. Choose one of these\.$"):
        make(folder="test").load_model(tmp_path / "trained", epoch=9)
    with pytest.raises(MissingFile, match='expected the folder with the checkpoints of "prompt_learner"'):
        make(folder="test").load_model(tmp_path / "nowhere")


def test_tensors_that_depend_on_the_class_names_are_not_loaded(make, tmp_path):
    trained(make)
    other = make(folder="test")
    other.model.token_prefix = torch.full((7, 1), 5.0)  # seven other classes
    other.load_model(tmp_path / "trained")
    assert other.model.token_prefix.tolist() == [[5.0]] * 7
    other.model.register_buffer("features", torch.zeros(7))
    other.model.ignored_keys = ("features",)
    other.load_model(tmp_path / "trained")
    # The same prompts have the same digest, whatever the classes.
    before = prompts_sha256({"prompt_learner": other.model})
    other.model.token_prefix = torch.zeros(3, 1)
    assert prompts_sha256({"prompt_learner": other.model}) == before
    other.model.ctx.data += 1
    assert prompts_sha256({"prompt_learner": other.model}) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("ctx"), r"ctx: expected shape \(4, 3\), got nothing"),
        (lambda tensors: tensors.update(ctx=torch.ones(2)), r"ctx: expected shape \(4, 3\), got \(2,\)"),
        (
            lambda tensors: tensors.update(other=torch.ones(2)),
            r"other: expected no tensor of this name, got shape \(2,\)",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_names_the_key(make, tmp_path, change, message):
    trained(make)
    path = tmp_path / "trained" / "prompt_learner" / "model.pth.tar-4"
    checkpoint = load_checkpoint(path)
    change(checkpoint["state_dict"])
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=message):
        make(folder="test").load_model(tmp_path / "trained")


@pytest.mark.parametrize("content", [b"", b"garbage", {"state_dict": 3}, [1]])
def test_a_damaged_checkpoint_is_named(make, tmp_path, content):
    trained(make)
    path = tmp_path / "trained" / "prompt_learner" / "model.pth.tar-4"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=r"model\.pth\.tar-4"):
        make(folder="test").load_model(tmp_path / "trained")


def test_frozen_parameters_in_a_file_are_skipped():
    module = torch.nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    before = module.bias.clone()
    load_trained(module, {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, "file")
    assert torch.equal(module.bias, before) and module.weight.sum() == 4
    assert list(trained_tensors(module)) == ["weight"]


def test_the_digest_covers_names_types_shapes_and_values():
    def digest(name="a", tensor=None):
        module = torch.nn.Module()
        module.register_buffer(name, torch.zeros(2, 3) if tensor is None else tensor)
        return prompts_sha256({"learner": module})

    variants = [
        digest("b"),
        digest(tensor=torch.zeros(3, 2)),
        digest(tensor=torch.zeros(2, 3, dtype=torch.int32)),
        digest(tensor=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1e-30]])),
        digest(tensor=torch.zeros(2, 3, dtype=torch.bfloat16)),
        prompts_sha256({}),
    ]
    assert digest() == digest(tensor=torch.zeros(3, 2).t())
    assert len({digest(), *variants}) == 7


@pytest.mark.parametrize("file", ["state.pt", "prompt_learner/model.pth.tar-4"])
def test_a_flipped_bit_is_detected_and_nothing_is_lost(make, tmp_path, file):
    trained(make)
    path, results = tmp_path / "trained" / file, tmp_path / "trained" / "results.json"
    before = results.read_bytes()
    with zipfile.ZipFile(path) as archive:
        record = next(r for r in archive.infolist() if "/data/" in r.filename)
    data = bytearray(path.read_bytes())
    lengths = data[record.header_offset + 26 : record.header_offset + 30]
    first = record.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    data[first] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="the checksum of .* is wrong. Restore it, or delete it"):
        if file == "state.pt":
            make(folder="trained").train()
        else:
            make(folder="test").load_model(tmp_path / "trained", epoch=4)
    assert results.read_bytes() == before and path.read_bytes() == bytes(data)


def test_keys_of_other_methods_and_versions_do_not_prevent_resuming(make, tmp_path):
    trained(make)
    path = tmp_path / "trained" / "state.pt"
    state = load_checkpoint(path)
    state["config"].pop("OPTIM.EPS")
    state["config"]["TRAINER.MINE.X"] = 1
    save_tensors(state, path)
    make(folder="trained").train()
    state["config"]["OPTIM.LR"] = 0.5
    save_tensors(state, path)
    with pytest.raises(UserError, match="OPTIM.LR: 0.5 there"):
        make(folder="trained").train()


def test_a_method_that_is_trained_is_not_tested_untrained(make):
    with pytest.raises(UserError, match="--model-dir: expected the output folder of a trained run, got nothing"):
        make().evaluate("")
