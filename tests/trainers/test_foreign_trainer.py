"""Trainer files written for Dassl and CoOp run unchanged when they are placed into trainers/."""

import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

import clip
import dassl.config
import dassl.engine
from basics import UserError
from dassl.config import family, get_cfg_default
from dassl.engine import TRAINER_REGISTRY, TrainerX
from trainers import coop
from trainers.context import ContextCLIP

ROOT = Path(__file__).parents[2]
FOREIGN = ROOT / "tests" / "foreign"
EPOCHS = 12
TIME_LIMIT = 120  # seconds for one run; it takes a few

# What trainer files, dataset files, and train scripts of two or more repositories of the family import, and inner paths
# that single repositories use.
USED_IMPORTS = {
    "dassl.config": ["clean_cfg", "get_cfg_default"],
    "dassl.data": ["DataManager", "DatasetWrapper"],
    "dassl.data.datasets": ["DATASET_REGISTRY", "DatasetBase", "Datum", "build_dataset"],
    "dassl.data.datasets.base_dataset": ["DatasetBase", "Datum"],
    "dassl.data.transforms": ["INTERPOLATION_MODES", "build_transform"],
    "dassl.engine": ["TRAINER_REGISTRY", "TrainerX", "build_trainer"],
    "dassl.engine.trainer": ["AverageMeter", "MetricMeter", "SummaryWriter", "TrainerX"],
    "dassl.evaluation.build": ["EVALUATOR_REGISTRY"],
    "dassl.evaluation.evaluator": ["EvaluatorBase"],
    "dassl.metrics": ["compute_accuracy"],
    "dassl.optim": ["build_lr_scheduler", "build_optimizer"],
    "dassl.optim.radam": ["RAdam"],
    "dassl.utils": [
        *["AverageMeter", "MetricMeter", "check_isfile", "collect_env_info", "count_num_param", "listdir_nohidden"],
        *["load_checkpoint", "load_pretrained_weights", "mkdir_if_missing", "read_image", "read_json"],
        *["set_random_seed", "setup_logger", "write_json"],
    ],
    "dassl.utils.tools": ["mkdir_if_missing"],
    "clip": ["available_models", "load", "tokenize"],
    "clip.clip": ["_MODELS", "_download", "_transform", "available_models", "build_model", "load", "tokenize"],
    "clip.model": ["CLIP", "LayerNorm", "QuickGELU", "ResidualAttentionBlock", "Transformer", "VisionTransformer"],
    "clip.simple_tokenizer": ["SimpleTokenizer"],
}


@pytest.mark.parametrize("module", USED_IMPORTS)
def test_everything_that_coop_family_files_import_exists(module, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # optional, so importing must not need it
    imported = importlib.import_module(module)
    assert [name for name in USED_IMPORTS[module] if not hasattr(imported, name)] == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Create a checkout with the foreign files in trainers/, without the built-in files that declare the same keys."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("basics", "clip", "dassl", "datasets", "configs"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(
        ROOT / "trainers", folder / "trainers", ignore=shutil.ignore_patterns("__pycache__", "coop.py", "maple.py")
    )
    shutil.copy(ROOT / "train.py", folder)
    for path in FOREIGN.glob("*.py"):
        shutil.copy(path, folder / "trainers")
    return folder


def words(trainer, output, *more):
    """Return the arguments of a command line."""
    return [
        *["--trainer", trainer, "--seed", "1", "--output-dir", output],
        *["--config-file", "configs/trainers/CoOp/tiny.yaml"],
        *["--dataset-config-file", "configs/datasets/digits.yaml", *more],
        *["DATASET.NUM_SHOTS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "5", "OPTIM.MAX_EPOCH", str(EPOCHS)],
        *["TRAINER.COOP.CTX_INIT", "", "TRAINER.COOP.N_CTX", "3", "TRAINER.COOP.PREC", "fp32"],
        *["TRAINER.MAPLE.PROMPT_DEPTH", "3"],
        *["DATASET.PROMPT", "a photo of a {}."],
    ]


def start(checkout, *command):
    environment = {**os.environ, "DASSL_CACHE": str(checkout / "cache")}
    environment.pop("PYTHONPATH", None)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    printed, _ = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 0, printed[-4000:]
    return printed


def results(checkout, output):
    return json.loads((checkout / output / "results.json").read_text())


def files(checkout):
    return sorted(path.relative_to(checkout).as_posix() for path in (checkout / "cache" / "clip").rglob("*"))


BASE, NEW = ["DATASET.SUBSAMPLE_CLASSES", "base"], ["DATASET.SUBSAMPLE_CLASSES", "new"]


@pytest.fixture(scope="module")
def trained(checkout):
    """Train an old file on the base classes."""
    finish(start(checkout, "train.py", *words("OldStyle", "undisturbed", *BASE)))
    return results(checkout, "undisturbed")


@pytest.fixture(scope="module")
def others(checkout, trained):
    """Return the output of more commands. One process runs them: starting it takes longer than any of them."""
    tested = ["--eval-only", "--model-dir"]
    commands = [
        words("OldStyle", "again", *tested, "undisturbed", *BASE),
        words("OldStyle", "new", *tested, "undisturbed", *NEW),
        words("WholeModel", "whole", *BASE),
        words("WholeModel", "whole_again", *tested, "whole", *BASE),
        words("RegistersNothing", "nothing", *NEW),
        words("ZeroshotCLIP", "zero_shot", *NEW),
        words("OldStyle", "missing", *tested, "whole", "--load-epoch", "3", *BASE),
    ]
    printed = finish(start(checkout, "-c", f"import train\nprint([train.main(words) for words in {commands}])"))
    assert printed.splitlines()[-1] == "[0, 0, 0, 0, 0, 0, 2]", printed[-4000:]
    return printed


def test_an_old_trainer_file_trains(trained):
    assert trained["epochs"] == EPOCHS and trained["trained_parameters"] == 3 * 128
    assert trained["metrics"]["accuracy"] > 100 / len(trained["metrics"]["per_class"])


@pytest.mark.slow
def test_the_weights_are_converted_once_into_the_cache(checkout, others):
    assert len(files(checkout)) == 1 and files(checkout)[0].endswith(".pt")


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_prompts(checkout, trained):
    command = ["train.py", *words("OldStyle", "killed", *BASE)]
    process = start(checkout, *command)
    deadline = time.monotonic() + TIME_LIMIT
    while not (checkout / "killed" / "state.pt").is_file():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-4000:]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (checkout / "killed" / "results.json").exists()
    assert "Resumed from" in finish(start(checkout, *command))
    resumed = results(checkout, "killed")
    assert resumed["prompts_sha256"] == trained["prompts_sha256"]
    assert resumed["metrics"] == trained["metrics"]


@pytest.mark.slow
def test_a_run_on_base_classes_is_tested_on_base_and_new_classes(checkout, trained, others):
    assert results(checkout, "again")["metrics"] == trained["metrics"]
    new = results(checkout, "new")
    assert new["load_epoch"] == EPOCHS
    assert new["metrics"]["per_class"].keys().isdisjoint(trained["metrics"]["per_class"])


@pytest.mark.slow
def test_a_file_that_registers_the_whole_model_saves_only_prompts(checkout, others):
    saved = torch.load(checkout / "whole" / "MultiModalPromptLearner" / f"model.pth.tar-{EPOCHS}", weights_only=True)
    assert all(key.startswith("prompt_learner.") for key in saved["state_dict"])
    assert results(checkout, "whole_again")["metrics"] == results(checkout, "whole")["metrics"]


@pytest.mark.slow
def test_a_file_that_registers_nothing_can_be_tested(checkout, others):
    foreign, builtin = results(checkout, "nothing"), results(checkout, "zero_shot")
    errors = [found["metrics"].pop("ece") for found in (foreign, builtin)]  # by another order of sums
    assert foreign["metrics"] == builtin["metrics"] and errors[0] == pytest.approx(errors[1], abs=1e-3)
    assert foreign["epochs"] == foreign["trained_parameters"] == 0


@pytest.mark.slow
def test_a_run_of_another_method_gives_one_message(others):
    assert "got whole: a run with checkpoints of MultiModalPromptLearner; name one of this method." in others
    assert "Traceback" not in others


@pytest.fixture
def old_style(monkeypatch):
    """Import the old file as a module; unregister what it registers afterward."""
    monkeypatch.setattr(TRAINER_REGISTRY, "_objects", dict(TRAINER_REGISTRY._objects))
    spec = importlib.util.spec_from_file_location("old_style", FOREIGN / "old_style.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cfg():
    cfg = get_cfg_default()
    coop.extend_cfg(cfg)
    cfg.INPUT.SIZE, cfg.MODEL.BACKBONE.NAME = (40, 40), "tiny"
    return cfg


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*:FutureWarning")  # called by the file
def test_an_old_coop_file_gives_the_logits_of_the_built_in_coop(old_style, cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path))
    names = ["cat", "Boeing 747-400", "sea horse"]
    old = old_style.CustomCLIP(cfg, names, old_style.load_clip_to_cpu(cfg).float())
    builtin = ContextCLIP(clip.load_clip("tiny"), names, cfg.TRAINER.COOP)
    builtin.prompt_learner.ctx.data.copy_(old.prompt_learner.ctx.data.mul_(20))
    images = torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(old(images), builtin(images), atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*:FutureWarning")
def test_an_old_file_in_half_precision_is_close_to_float32(old_style, cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path))
    half = old_style.CustomCLIP(cfg, ["cat", "dog"], old_style.load_clip_to_cpu(cfg))
    assert half.dtype == half.prompt_learner.ctx.dtype == torch.float16
    exact = old_style.CustomCLIP(cfg, ["cat", "dog"], old_style.load_clip_to_cpu(cfg).float())
    half.prompt_learner.ctx.data.copy_(exact.prompt_learner.ctx)
    images = torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(half(images).float(), exact(images), atol=0.2, rtol=0)


@pytest.mark.parametrize("key", ["TRAINER.ELSEWHERE", "TRAINER.COOP.ELSEWHERE", "ELSEWHERE"])
def test_an_undeclared_key_that_a_file_reads_is_named(cfg, monkeypatch, key):
    class Foreign(TrainerX):
        def check_cfg(self, cfg):
            for name in key.split("."):
                cfg = getattr(cfg, name)

    monkeypatch.setattr(TRAINER_REGISTRY, "_objects", {"Foreign": Foreign})
    cfg.TRAINER.NAME = "Foreign"
    with pytest.raises(UserError, match=rf"{key}: expected a declared key.*Foreign .* reads it(.|\n)*cfg\.{key} = "):
        dassl.engine.build_trainer(cfg)


def test_an_undeclared_key_on_the_command_line_is_named(cfg):
    with pytest.raises(UserError, match=r"unknown key TRAINER.ELSEWHERE.N_CTX\. .*extend_cfg\(cfg\)"):
        dassl.config.merge(cfg, opts=["TRAINER.ELSEWHERE.N_CTX", 3])
    with pytest.raises(UserError) as error:
        dassl.config.merge(cfg, opts=["TRAINER.COOP.N_CTXS", 3])
    assert "extend_cfg" not in str(error.value)


def test_keys_of_the_coop_family_do_not_replace_declared_ones():
    cfg = get_cfg_default()
    coop.extend_cfg(cfg)
    family.add_missing_nodes(cfg)
    assert family.NODES.keys() <= cfg.TRAINER.keys()
    assert cfg.TRAINER.COOP.PREC == "fp32" and cfg.TRAINER.COCOOP.PREC == "fp16"
    assert cfg.TRAINER.IVLP == CfgNode(family.NODES["IVLP"])


def test_other_errors_in_a_trainer_file_keep_their_traceback(cfg, monkeypatch):
    class Foreign(TrainerX):
        def check_cfg(self, cfg):
            return CfgNode.no_such_thing

    monkeypatch.setattr(TRAINER_REGISTRY, "_objects", {"Foreign": Foreign})
    cfg.TRAINER.NAME = "Foreign"
    with pytest.raises(AttributeError, match="no_such_thing"):
        dassl.engine.build_trainer(cfg)
