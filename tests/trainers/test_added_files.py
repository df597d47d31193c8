"""Files of the CoOp family in trainers/ of the current folder run unchanged, or end in one message."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import clip
import train
import trainers
from basics import additions
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.engine.compat import OnCPU
from trainers.kgcoop import KgCoOp as BuiltIn

FOREIGN = Path(__file__).parents[1] / "foreign"
LOSS = "\n\ndef extend_cfg(cfg):\n    cfg.LOSS = type(cfg)()\n    cfg.LOSS.NAME = 'tempered'\n    cfg.LOSS.T = 2.0\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def here(cache, tmp_path, monkeypatch):
    """The current folder. What the test imports and registers is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DASSL_CACHE", str(cache))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("_objects", "_replaced", "_clashes"):
        monkeypatch.setattr(TRAINER_REGISTRY, name, dict(getattr(TRAINER_REGISTRY, name)))
    monkeypatch.setattr(trainers, "METHODS", trainers.METHODS)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("foreign_"):
            del sys.modules[name]


@pytest.fixture
def added(here):
    """The current folder with trainers/ in the style of KgCoOp and IVLP, which declares the keys that it reads."""
    shutil.copytree(FOREIGN / "added", here, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    with open(here / "trainers" / "knowledge.py", "a") as file:
        file.write(LOSS)
    return here


def run(trainer, *settings, config="configs/trainers/CoOp/tiny.yaml"):
    """Import trainers/ of the current folder, and train for one epoch on few pictures. Returns the exit status."""
    trainers.METHODS = additions.import_all("trainers", trainers.__path__)
    words = ["--trainer", trainer, "--seed", "1", "--output-dir", "run", "--config-file", config, *settings]
    words += ["--dataset-config-file", "configs/datasets/digits.yaml", "--shots", "1", "--epochs", "1"]
    return train.main([*words, "--classes", "base"])


def error(capsys):
    """Return the only message of the command."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("Note: ", "warning: "))]
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def line_of(file, code):
    """Return the number of the first line with this code."""
    return next(number for number, line in enumerate(file.read_text().splitlines(), start=1) if code in line)


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# .cuda() without a GPU


def test_a_file_that_calls_cuda_trains_without_a_gpu_after_one_note(added, capsys):
    assert run("KgCoOp") == 0
    assert json.loads((added / "run" / "results.json").read_text())["trained_parameters"] > 0
    assert capsys.readouterr().err.count("Note: the file of KgCoOp asks for a GPU") == 1


def test_cuda_is_itself_again_after_a_call_of_such_a_trainer():
    def build(cfg):
        return torch.nn.Linear(1, 1).cuda().to("cuda:1").weight.cuda(0).new_zeros(1, device=torch.device("cuda", 0))

    mode = OnCPU("Any")
    assert mode.run(build, None).device.type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError), match="CUDA|NVIDIA"):
            build(None)


def test_trainers_of_this_project_run_without_that_mode(here, monkeypatch):
    monkeypatch.setattr(OnCPU, "build", lambda *given: pytest.fail("built in the mode"))
    assert run("ZeroshotCLIP") == 0


def test_what_the_mode_does_not_cover_is_one_message(added, capsys):
    file = added / "trainers" / "knowledge.py"
    change(file, "        clip_model_.cuda()", "        torch.cuda.set_device(99)")
    assert run("KgCoOp") == 2
    message = error(capsys)
    assert f"trainers/knowledge.py:{line_of(file, 'set_device')}: expected the trainer KgCoOp to run" in message
    assert "`torch.cuda.set_device(99)`. The file needs a GPU there" in message


# Names


def test_a_users_class_takes_a_built_in_name_and_the_output_says_so(added, capsys):
    assert run("KgCoOp", "--no-train") == 0
    assert "that of trainers/knowledge.py, and not that of" in capsys.readouterr().err
    assert TRAINER_REGISTRY.get("KgCoOp") is not BuiltIn is TRAINER_REGISTRY.replaced("KgCoOp")


def test_a_users_file_takes_the_place_of_no_built_in_module(added):
    (added / "trainers" / "templates.py").rename(added / "trainers" / "context.py")
    change(added / "trainers" / "knowledge.py", "trainers.templates", "trainers.context")
    assert run("CoOp", "--no-train") == 0 and run("KgCoOp", "--no-train") == 0


def test_two_files_of_the_user_with_one_name_are_one_message_when_it_is_asked_for(added, capsys):
    shutil.copy(added / "trainers" / "knowledge.py", added / "trainers" / "other.py")
    assert run("KgCoOp") == 2
    assert (
        "trainer KgCoOp: expected one file that registers it, got two: trainers/knowledge.py and trainers/other.py."
        in error(capsys)
    )
    assert run("IVLP", "--no-train") == 0


def test_a_class_written_for_dassl_is_none_of_ours_wherever_its_file_lies():
    assert TRAINER_REGISTRY._is_built_in(BuiltIn)
    assert not TRAINER_REGISTRY._is_built_in(type("KgCoOp", (TrainerX,), {"__module__": "trainers.independentVL"}))


# Keys


@pytest.mark.parametrize("value, words", [("True", "a photo of a"), ("False", ""), ("", ""), ("null", ""), ("~", "")])
def test_ctx_init_in_a_file_may_be_no_text(added, capsys, value, words):
    (added / "a.yaml").write_text(
        (FOREIGN.parents[1] / "configs/trainers/CoOp/tiny.yaml").read_text().replace('"a photo of a"', value)
    )
    assert run("KgCoOp", "--no-train", config="a.yaml") == 0
    assert f"words: {words!r}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "key, line",
    [
        ("LOSS.T", "cfg.LOSS = CfgNode(); cfg.LOSS.T = 1.5"),
        ("TRAINER.COOP.WEIGHT_U", "cfg.TRAINER.COOP.WEIGHT_U = 1.5"),
        ("TRAINER.PROMPTS.DEEP.X", "cfg.TRAINER.PROMPTS = CfgNode(); cfg.TRAINER.PROMPTS.DEEP = CfgNode(); "),
    ],
)
def test_an_undeclared_key_of_a_file_comes_with_the_lines_that_declare_it(here, capsys, key, line):
    *sections, name = key.split(".")
    rows = [*sections, f"{name}: 1.5"]
    (here / "a.yaml").write_text(":\n".join("  " * depth + row for depth, row in enumerate(rows)))
    assert run("CoOp", config="a.yaml") == 2
    message = error(capsys)
    assert (
        f"a.yaml: unknown key {key}. " in message
        and f"extend_cfg(cfg) of the method's file, or of one next to it: {line}" in message
    )


def test_an_undeclared_key_that_a_file_reads_while_it_trains_is_named(added, capsys):
    change(
        added / "trainers" / "knowledge.py", "image, label = batch", "self.cfg.LOSS.GAMMA, batch; image, label = batch"
    )
    assert run("KgCoOp") == 2
    assert "error: LOSS.GAMMA: expected a declared key, got none" in capsys.readouterr().err


def test_a_file_adds_keys_to_the_node_of_a_built_in(added, monkeypatch):
    with open(added / "trainers" / "independentVL.py", "a") as file:
        file.write("\n\ndef extend_cfg(cfg):\n    cfg.TRAINER.KGCOOP.MORE = 3\n")
    assert run("IVLP", "TRAINER.KGCOOP.MORE=4", "--no-train") == 0
    monkeypatch.setattr(trainers, "METHODS", trainers.METHODS[::-1])  # as if its file were the first of ours
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    assert cfg.TRAINER.KGCOOP.MORE == 3 and cfg.TRAINER.KGCOOP.N_CTX == 4


def test_a_file_that_adds_keys_to_no_node_is_named(added, capsys):
    with open(added / "trainers" / "independentVL.py", "a") as file:
        file.write("\n\ndef extend_cfg(cfg):\n    cfg.NOWHERE.MORE = 3\n")
    assert run("IVLP") == 2
    assert "independentVL.py: expected extend_cfg to declare each node before its keys, got" in error(capsys)


# Errors of the file


def test_a_dataset_that_the_file_does_not_know_is_one_message(added, capsys):
    change(added / "trainers" / "templates.py", "Digits", "ImageNet")
    assert run("KgCoOp") == 2
    line = line_of(added / "trainers" / "knowledge.py", "CUSTOM_TEMPLATES[")
    expected = f"trainers/knowledge.py:{line}: expected the trainer KgCoOp to run with these settings, got KeyError: "
    message = error(capsys)
    assert f"{expected}'Digits', at `temp = CUSTOM_TEMPLATES[cfg.DATASET.NAME]`." in message
    assert "no entry for the dataset Digits" in message


def test_a_variable_adds_the_whole_traceback(added, capsys, monkeypatch):
    monkeypatch.setenv("DASSL_TRACEBACK", "1")
    change(added / "trainers" / "templates.py", "Digits", "ImageNet")
    assert run("KgCoOp") == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_error_in_a_check_of_the_file_is_one_message(added, capsys):
    change(
        added / "trainers" / "knowledge.py",
        "    def build_model",
        "    check_cfg = lambda self, cfg: 1 / 0\n\n    def build_model",
    )
    assert run("KgCoOp") == 2
    assert "got ZeroDivisionError: division by zero, at `check_cfg = " in error(capsys)


def test_an_error_of_our_own_keeps_its_traceback(here, monkeypatch):
    monkeypatch.setattr(trainers.zsclip.ZeroshotCLIP, "build_model", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("ZeroshotCLIP")


# A clip package of their own


@pytest.fixture(params=["next to trainers/", "in a method folder"])
def own_clip(here, request):
    """The current folder with trainers/ in the style of MMA, and the clip package that it needs."""
    target = here if request.param == "next to trainers/" else here / "trainers" / "MMA"
    shutil.copytree(FOREIGN / "own_clip", target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_a_file_finds_the_clip_package_that_came_with_it(own_clip, capsys):
    ours = sys.modules["clip"], sys.modules["clip.model"]
    assert run("SharedAdapter") == 0
    used = sys.modules[TRAINER_REGISTRY.get("SharedAdapter").__module__].own_clip
    assert Path(used.__file__) == own_clip / "clip" / "clip.py"
    assert ours == (sys.modules["clip"], sys.modules["clip.model"]) and ours[0] is clip
    assert "warning" not in capsys.readouterr().err


def test_ours_trains_next_to_it_with_our_clip(own_clip):
    assert run("CoOp", "--no-train") == 0


def test_a_file_that_needs_another_clip_and_brings_none_is_named(here, capsys):
    shutil.copytree(FOREIGN / "own_clip" / "trainers", here / "trainers")
    assert run("SharedAdapter") == 2
    printed = capsys.readouterr().err
    assert "trainers/shared_adapter.py is skipped: ModuleNotFoundError: No module named 'clip.gsl'" in printed
    assert "--trainer: unknown method 'SharedAdapter'" in printed


# Designs with prompts inside the towers


def test_a_design_with_further_keys_trains(added):
    assert run("IVLP", "TRAINER.IVLP.PROMPT_DEPTH_VISION=2", "TRAINER.IVLP.PROMPT_DEPTH_TEXT=2") == 0


@pytest.mark.parametrize(
    "new, message",
    [
        ('"trainer": "Other"', "design_details: expected trainer IVLP or VPT, or depths of 0, got trainer 'Other'. "),
        (
            '"trainer": "IVLP", "vision_ctx": None',
            "design_details: expected vision_ctx as a whole number from 1, got None",
        ),
    ],
)
def test_a_design_that_our_clip_does_not_have_is_one_message(added, capsys, new, message):
    change(added / "trainers" / "independentVL.py", '"trainer": "IVLP"', new)
    assert run("IVLP") == 2
    assert message in error(capsys)
