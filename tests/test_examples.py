"""The examples work as they are, and the documentation site builds without a warning."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dassl.engine import TRAINER_REGISTRY

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "output", "site", "build", "*.egg-info", "__pycache__")


@pytest.fixture
def example_method(monkeypatch):
    """Import examples/vision_prompt.py as if it were in trainers/."""
    spec = importlib.util.spec_from_file_location("trainers.vision_prompt", ROOT / "examples" / "vision_prompt.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "trainers.vision_prompt", module)
    spec.loader.exec_module(module)
    yield module
    del TRAINER_REGISTRY._objects["VisionPrompt"]


def test_the_example_method_trains_its_prompts_alone(example_method, tmp_path):
    import train
    import trainers

    trainers.METHODS.append(example_method)
    try:
        arguments = ["--trainer", "VisionPrompt", "--seed", "1", "--output-dir", str(tmp_path)]
        arguments += ["--config-file", str(ROOT / "configs/trainers/VPT/tiny.yaml")]
        arguments += ["--dataset-config-file", str(ROOT / "configs/datasets/roman_numerals.yaml")]
        options = ["DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", "TRAIN.CHECKPOINT_FREQ", "1"]
        assert train.main([*arguments, *options]) == 0
    finally:
        trainers.METHODS.remove(example_method)
    import torch

    saved = torch.load(tmp_path / "prompt_learner" / "model.pth.tar-1", weights_only=True)["state_dict"]
    assert list(saved) == ["prompts"] and saved["prompts"].shape[0] == 4
    assert (tmp_path / "results.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("notebook", ["own_photos", "compare_methods"])
def test_the_notebook_runs_from_top_to_bottom(notebook, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    copy = shutil.copytree(ROOT, tmp_path / "checkout", ignore=LEFT_OUT)
    content = nbformat.read(copy / "examples" / f"{notebook}.ipynb", as_version=4)
    client = nbclient.NotebookClient(content, timeout=300, resources={"metadata": {"path": copy / "examples"}})
    client.execute()


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("zensical")
    copy = shutil.copytree(ROOT, tmp_path / "checkout", ignore=LEFT_OUT)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PromptTrainer" in (copy / "site" / "api" / "index.html").read_text()
    assert "VisionPromptCLIP" in (copy / "site" / "adding-a-method" / "index.html").read_text()
