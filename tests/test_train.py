"""The entry point: seeds, folders, and one clear message per mistake. Interrupted runs: test_stopped_runs.py."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_clip import make_small_clip, write_transformers

import train
from basics import Stopped, UserError

ROOT = Path(__file__).parents[1]
DIGITS = ["--dataset-config-file", "configs/datasets/digits.yaml"]
SHORT = ["DATASET.NUM_SHOTS", "1", "DATASET.SUBSAMPLE_CLASSES", "new"]
TINY = ["--config-file", "configs/trainers/RPO/tiny.yaml"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def in_checkout(cache, monkeypatch):
    """Run in the checkout, and render the demo datasets once."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DASSL_CACHE", str(cache))


def parsed(log, end_signal):
    """Return the accuracies that CoOp's parse_test_res.py reads in a log: those after a line with the end signal."""
    waiting, accuracies = True, []
    for line in log.read_text().splitlines():
        waiting = waiting and line.strip() != end_signal
        match = re.search(r"\* accuracy: ([\.\deE+-]+)%", line.strip())
        if match and not waiting:
            accuracies.append(float(match.group(1)))
    return accuracies


def test_coops_parser_reads_the_logs_of_training_and_test(in_checkout, tmp_path, capsys):
    opts = ["DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", "DATASET.SUBSAMPLE_CLASSES"]
    flags = ["--trainer", "RPO", "--seed", "1", "--output-dir"]
    trained, tested = tmp_path / "trained", tmp_path / "tested"
    assert train.main([*flags, str(trained), *opts, "base"]) == 0
    assert train.main([*flags, str(tested), "--eval-only", "--model-dir", str(trained), *opts, "new"]) == 0
    for folder, end_signal in [(trained, "Finished training"), (trained, "Finish training"), (tested, "=> result")]:
        accuracy = json.loads((folder / "results.json").read_text())["metrics"]["accuracy"]
        assert parsed(folder / "log.txt", end_signal) == [round(accuracy, 1)]


def test_a_test_without_a_model_is_refused_before_a_summary(in_checkout, tmp_path, capsys):
    assert train.main(["--trainer", "RPO", "--eval-only", "--output-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    assert "error: --model-dir: expected the output folder of a trained run, got nothing" in said.err
    assert "method  " not in said.out


def test_flags_may_follow_settings_which_may_be_one_word(in_checkout):
    words = ["OPTIM.LR=0.5", "--trainer", "RPO", "SEED", "-1", "DATASET.PROMPT=a = {}", "INPUT.SIZE", "(40, 40)"]
    args = train.parser().parse_intermixed_args([*words, "--no-train"])
    expected = ["OPTIM.LR", "0.5", "SEED", "-1", "DATASET.PROMPT", "a = {}", "INPUT.SIZE", "(40, 40)"]
    assert train.split_pairs(args.opts) == expected and args.trainer == "RPO" and args.no_train


def test_flags_stand_for_keys_and_methods_have_names_in_any_case(in_checkout):
    flags = ["--trainer", "rpo", "--epochs", "3", "--lr", "0.5", "--batch-size", "2", "--shots", "-1"]
    args = train.parser().parse_intermixed_args([*flags, "--classes", "new", "--device", "cpu", *DIGITS, "OPTIM.LR=.5"])
    args.opts = train.split_pairs(args.opts)
    cfg = train.setup_cfg(args)
    assert (cfg.TRAINER.NAME, cfg.OPTIM.MAX_EPOCH, cfg.OPTIM.LR, cfg.USE_CUDA) == ("RPO", 3, 0.5, False)
    assert (cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATASET.NUM_SHOTS) == (2, -1)
    assert cfg.DATASET.SUBSAMPLE_CLASSES == "new"


MISTAKES = {
    "flag and key": (["--epochs", "3", "OPTIM.MAX_EPOCH", "4"], "--epochs, OPTIM.MAX_EPOCH: expected one value, got 3"),
    "learning rate of nothing": (["--find-lr", "--no-train"], "--find-lr: expected neither --eval-only nor --no-train"),
    "unknown key": (["OPTIM.LRR", "1"], "unknown key OPTIM.LRR. Did you mean OPTIM.LR?"),
    "wrong type": (["OPTIM.MAX_EPOCH", "many"], "OPTIM.MAX_EPOCH: expected an integer"),
    "unknown trainer": (["--trainer", "RPOO"], "RPO"),
    "unknown dataset": (["DATASET.NAME", "Digit"], "Digits"),
    "unknown backbone": ([*DIGITS, *TINY, "--backbone", "tin"], "Did you mean 'tiny'?"),
    "no backbone": (["--root", "{tmp}", *DIGITS], "got none. Give --backbone or --config-file"),
    "wrong data folder": (
        ["--root", "/nowhere", "--dataset-config-file", "configs/datasets/oxford_pets.yaml", *TINY],
        "/nowhere",
    ),
    "backbone with other towers": (
        [*DIGITS, *TINY, "--backbone", "ViT-B-16-SigLIP/webli"],
        "ViT-B-16-SigLIP/webli: expected the layout of OpenAI's models",
    ),
    "backbone on the Hub without a network": (
        [*DIGITS, *TINY, "--backbone", "hf-hub:me/none"],
        "hf-hub:me/none: expected open_clip_config.json",
    ),
    "missing weights": ([*DIGITS, *TINY, "--backbone", "a/b.pt"], "a/b.pt"),
    "missing configuration": (["--config-file", "configs/trainers/RPO/none.yaml"], "none.yaml"),
    "K too large": (["TRAINER.RPO.K", "99"], "got 0 with 99 learned vectors. Use fewer."),
    "image size": (["INPUT.SIZE", "(32, 32)"], "expected (40, 40) for the backbone tiny, got (32, 32)"),
    "no such model": (["--eval-only", "--model-dir", "none"], 'got "none", which does not exist'),
    "no such model, and no method": (
        ["--trainer", "", "--eval-only", "--model-dir", "none"],
        'got "none", which does not exist',
    ),
    "nothing to test": (["--eval-only"], "--model-dir: expected the output folder of a trained run"),
    "negative seed": (["--seed", "-5"], "--seed: expected 0 or more, got -5"),
    "batch of none": (["DATALOADER.TRAIN_X.BATCH_SIZE", "0"], "BATCH_SIZE: expected at least 1, got 0"),
    "no method": (["--trainer", ""], "--trainer: expected a method, one of"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_message_and_status_2(in_checkout, tmp_path, capsys, mistake):
    arguments, message = MISTAKES[mistake]
    arguments = [word.replace("{tmp}", str(tmp_path)) for word in arguments]
    flags = ["--trainer", "RPO", "--seed", "1", "--output-dir", str(tmp_path / "run")]
    if "--trainer" in arguments:
        flags = flags[2:]
    assert train.main([*flags, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    assert message in error
    assert not (tmp_path / "run" / "results.json").exists()


def test_all_mistakes_are_reported_together(in_checkout, capsys):
    assert train.main(["--trainer", "RPO", "OPTIM.LRR", "1", "TRAINER.RPO.K", "many", "DATASET.NUMSHOTS", "1"]) == 2
    error = capsys.readouterr().err
    assert all(key in error for key in ("OPTIM.LRR", "TRAINER.RPO.K", "DATASET.NUMSHOTS"))


def config_of(*arguments):
    args = train.parser().parse_intermixed_args(["--trainer", "RPO", *DIGITS, *arguments])
    args.opts = train.split_pairs(args.opts)
    return train.setup_cfg(args).INPUT


def test_images_follow_the_backbone_unless_they_are_set(in_checkout, tmp_path, capsys):
    main = ("--config-file", "configs/trainers/RPO/main_K24.yaml", "TRAINER.RPO.PREC", "fp32")
    assert config_of(*main, "--backbone", "ViT-L/14@336px").SIZE == (336, 336)
    assert "INPUT.SIZE: (336, 336), as ViT-L/14@336px needs, instead of (224, 224) in" in capsys.readouterr().err
    rn50 = ("--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/rn50.yaml", "TRAINER.COOP.PREC", "fp32")
    assert config_of(*rn50, "MODEL.BACKBONE.NAME", "RN50x4").SIZE == (288, 288)
    capsys.readouterr()
    assert config_of(*main).SIZE == (224, 224) and "INPUT." not in capsys.readouterr().err  # as released
    found = config_of(*main, "--backbone", "tiny")
    assert (found.SIZE, found.PIXEL_MEAN, found.PIXEL_STD) == ((40, 40), [0.5] * 3, [0.27] * 3)
    found = config_of(*main, "--backbone", "tiny", "INPUT.PIXEL_MEAN", "[0.1, 0.2, 0.3]")
    assert (found.SIZE, found.PIXEL_MEAN, found.PIXEL_STD) == ((40, 40), [0.1, 0.2, 0.3], [0.27] * 3)
    own = tmp_path / "own.yaml"
    own.write_text("MODEL:\n  BACKBONE:\n    NAME: ViT-L/14@336px\n")
    found = config_of("--config-file", str(own), "TRAINER.RPO.PREC", "fp32")
    assert (found.SIZE, *found.PIXEL_MEAN[:1]) == ((336, 336), 0.48145466)
    own.write_text(f"{own.read_text()}INPUT:\n  SIZE: (224, 224)\n")
    with pytest.raises(UserError, match=r"expected \(336, 336\) for .*, got \(224, 224\). Leave the key out of"):
        config_of("--config-file", str(own), "TRAINER.RPO.PREC", "fp32")


def test_a_file_without_image_statistics_keeps_those_of_the_config(in_checkout, tmp_path):
    folder = write_transformers(tmp_path / "model", make_small_clip().state_dict(), make_small_clip().config)
    found = config_of(*TINY, "TRAINER.RPO.K", "2", "--backbone", str(folder))
    assert (found.SIZE, found.PIXEL_MEAN, found.PIXEL_STD) == ((24, 24), [0.5] * 3, [0.27] * 3)
    about = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    found = config_of(*TINY, "--backbone", str(folder))
    assert (found.PIXEL_MEAN, found.PIXEL_STD) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


def test_a_backbone_of_transformers_trains_and_travels_with_the_model(in_checkout, tmp_path):
    """Train, save with the backbone, remove the original, and predict."""
    from promptlearn.classifier import PromptedClassifier

    folder = write_transformers(tmp_path / "clip", make_small_clip().state_dict(), make_small_clip().config)
    about = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    flags = ["--trainer", "RPO", "--seed", "1", "--output-dir", str(tmp_path / "run"), "--backbone", str(folder)]
    assert train.main([*flags, *DIGITS, *TINY, *SHORT, "OPTIM.MAX_EPOCH", "1"]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    found = results["config"]["INPUT"]
    assert (found["SIZE"], found["PIXEL_MEAN"], found["PIXEL_STD"]) == ([24, 24], [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    classifier = PromptedClassifier.from_pretrained(tmp_path / "run", device="cpu")
    classifier.save_pretrained(tmp_path / "model", include_backbone=True)
    folder.rename(tmp_path / "elsewhere")
    saved = PromptedClassifier.from_pretrained(tmp_path / "model", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 30, 3), dtype=np.uint8)
    assert torch.equal(saved.predict(list(pixels)).logits, classifier.predict(list(pixels)).logits)
    assert saved.description.weights_sha256 == results["weights_sha256"]
    change = json.loads((tmp_path / "model" / "backbone" / "config.json").read_text())
    change["text_config"]["num_attention_heads"] = 4
    (tmp_path / "model" / "backbone" / "config.json").write_text(json.dumps(change))
    with pytest.raises(UserError, match="expected the backbone that the model was trained on"):
        PromptedClassifier.from_pretrained(tmp_path / "model", device="cpu")


def test_a_missing_seed_is_sampled_and_kept_for_resuming(in_checkout, tmp_path, capsys):
    opts = [*SHORT, "OPTIM.MAX_EPOCH", "1"]
    assert train.main(["--trainer", "RPO", "--output-dir", str(tmp_path), *opts]) == 0
    seed = json.loads((tmp_path / "results.json").read_text())["seed"]
    assert seed >= 0 and f"No seed given; sampled: {seed}" in capsys.readouterr().err
    # The same command resumes the run with its seed.
    assert train.main(["--trainer", "RPO", "--seed", "-1", "--output-dir", str(tmp_path), *opts]) == 0
    assert f"No seed given; using that of the run in {tmp_path}: {seed}" in capsys.readouterr().err


def test_a_stopped_run_names_its_sampled_seed_if_its_folder_depends_on_it(in_checkout, tmp_path, monkeypatch, capsys):
    def stop(args, cfg):
        raise Stopped(signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "train_or_test", stop)
    assert train.main(["--trainer", "RPO"]) == 130
    error = capsys.readouterr().err
    seed = re.search(r"sampled: (\d+)", error)[1]
    assert f"Run the same command with --seed {seed} to resume" in error
    for words in (["--output-dir", "run"], ["--seed", "1"]):
        assert train.main(["--trainer", "RPO", *words]) == 130
        assert "Run the same command to resume" in capsys.readouterr().err


# With cached image features; with images.
@pytest.mark.parametrize("method", [pytest.param("CoOp", marks=pytest.mark.slow), "RPO"])
def test_a_run_exits_together_with_its_workers(in_checkout, tmp_path, method):
    command = [sys.executable, "train.py", "--trainer", method, "--seed", "1", "--output-dir", str(tmp_path / "run")]
    few = [*SHORT, "OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", "2"]
    done = subprocess.run([*command, *few], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "done"


def test_no_resume_starts_over_in_a_new_folder(in_checkout, tmp_path, capsys):
    command = ["--trainer", "LP", "--seed", "0", "--no-resume", "--output-dir", str(tmp_path / "run")]
    opts = [*SHORT, "OPTIM.MAX_EPOCH", "1", "TEST.NO_TEST", "True"]
    folders = [tmp_path / name for name in ("run", "run-2", "run-3")]
    kept = {}
    for folder in folders:
        assert train.main([*command, *opts]) == 0
        assert f"Starting over in {folder}\n" in capsys.readouterr().err
        assert json.loads((folder / "results.json").read_text())["config"]["OUTPUT_DIR"] == str(folder)
        assert kept == {path: path.read_bytes() for path in kept}
        kept |= {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert sorted(tmp_path.iterdir()) == folders
    assert train.main([*command, "--resume", str(tmp_path / "run"), *opts]) == 2
    assert "--resume, --no-resume" in capsys.readouterr().err


@pytest.fixture(scope="module")
def own_run(tmp_path_factory, cache):
    """Train on the user's own pictures of three classes; return the folder of the run."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("cat", "dog", "fox"):
        for part, count in (("train", 1), ("test", 2)):
            (folder / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                Image.effect_noise((48, 48), 50).save(folder / "photos" / part / name / f"{number}.png")
    run = ["--trainer", "RPO", *TINY, "--dataset-config-file", "configs/datasets/image_folder.yaml", "--seed", "1"]
    run += [
        "--root",
        str(folder / "photos"),
        "--output-dir",
        str(folder / "run"),
        "--epochs",
        "1",
        "TRAINER.RPO.K",
        "3",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("DASSL_CACHE", str(cache))
        assert train.main(run) == 0
    return folder / "run"


def evaluated(own_run, folder, *words):
    """Test the model of `own_run`; return results.json."""
    assert train.main(["--eval-only", "--model-dir", str(own_run), "--output-dir", str(folder), *words]) == 0
    return json.loads((folder / "results.json").read_text())


def test_a_model_is_tested_with_the_config_of_its_run(in_checkout, own_run, tmp_path, capsys):
    result, trained = evaluated(own_run, tmp_path / "test"), json.loads((own_run / "results.json").read_text())
    assert result["metrics"] == trained["metrics"] and result["prompts_sha256"] == trained["prompts_sha256"]
    assert result["dataset_dir"] == trained["dataset_dir"] and result["seed"] == 1
    assert result["config"]["TRAINER"]["RPO"]["K"] == 3
    where = f"ImageFolder in {own_run.parent / 'photos'} (3 classes: cat, dog, fox"
    out = capsys.readouterr().out
    assert out.count(f"RPO, trained on {where}; 16 shots); tested on {where})\n") == 1
    assert "demo" not in out


def test_the_command_overrides_the_config_of_the_models_run(in_checkout, own_run, tmp_path, capsys):
    result = evaluated(own_run, tmp_path / "new", "--classes", "new", "TEST.TOP_K", "(2,)")
    assert list(result["metrics"]["per_class"]) == ["fox"] and result["metrics"]["top2_accuracy"] == 100.0
    out, err = capsys.readouterr()
    assert "tested on ImageFolder" in out and "(1 new class: fox)\n" in out
    assert "Note: the test has a single class" in err


def test_settings_of_another_dataset_are_not_those_of_the_models_run(in_checkout, own_run, tmp_path, capsys):
    result = evaluated(own_run, tmp_path / "digits", *DIGITS)
    assert (result["dataset"], result["config"]["DATASET"]["ROOT"]) == ("Digits", "")
    assert result["config"]["TRAINER"]["RPO"]["K"] == 3 and result["shots"] == 16
    assert "(3 classes: cat, dog, fox; 16 shots); tested on Digits (10 classes: " in capsys.readouterr().out


def test_a_model_without_a_config_is_not_tested_on_the_demos_digits(in_checkout, own_run, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(own_run / "prompt_learner", model / "prompt_learner")
    command = ["--trainer", "RPO", "--seed", "1", "--eval-only", "--model-dir", str(model)]
    assert train.main([*command, "--output-dir", str(tmp_path / "test")]) == 2
    assert f"{model}: expected a model in a run's folder, with its config.yaml" in capsys.readouterr().err
    command += [*DIGITS, *TINY, "TRAINER.RPO.K", "3", "--output-dir", str(tmp_path / "digits")]
    assert train.main(command) == 0
    assert f"RPO, trained on unknown data (no config.yaml in {model}); tested on Digits" in capsys.readouterr().out


def test_settings_that_no_longer_exist_do_not_prevent_a_test(in_checkout, own_run, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(own_run, model)
    config = (model / "config.yaml").read_text()
    (model / "config.yaml").write_text(config + "OLD: 1\n")
    evaluated(model, tmp_path / "test")
    assert "settings that do not exist here are left out: OLD" in capsys.readouterr().err
    (model / "config.yaml").write_text("OPTIM: [")
    assert train.main(["--eval-only", "--model-dir", str(model), "--output-dir", str(tmp_path / "none")]) == 2
    assert f"{model / 'config.yaml'}: expected valid YAML" in capsys.readouterr().err
