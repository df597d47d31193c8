"""A whole repository of the CoOp family runs with this `dassl`, and nothing else of this project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.foreign_repository import make_repository

ROOT = Path(__file__).parents[1]
SEVERAL_GPUS = "import torch; torch.cuda.device_count = lambda: 2\n"
RUN = "import runpy, sys; sys.path[0] = '.'; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
DOMAINS = ("--source-domains", "plain", "dark", "--target-domains", "inverted")
FEW = ("DATASET.NUM_SHOTS", "4", "DATASET.SUBSAMPLE_CLASSES")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "only_dassl").mkdir()
    for package in ("basics", "dassl"):
        (folder / "only_dassl" / package).symlink_to(ROOT / package)
    return make_repository(folder)


def run(repository, script, *arguments, before=""):
    """Run a script. Without `site`, an editable installation of this project does not exist."""
    libraries = [path for path in sys.path if path.endswith("-packages")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(repository.parent / "only_dassl"), *libraries]),
        "HOME": str(repository.parent),
    }
    command = [sys.executable, "-S", "-c", before + RUN, script, *arguments]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def train(repository, output, *settings, flags=(), dataset="shapes", trainer="PromptCoOp", before=""):
    arguments = (*flags, "--root", "DATA", "--seed", "1", "--trainer", trainer, "--output-dir", output)
    arguments += ("--dataset-config-file", f"configs/datasets/{dataset}.yaml")
    arguments += ("--config-file", "configs/trainers/PromptCoOp/small_ep3.yaml")
    return run(repository, "train.py", *arguments, *settings, before=before)


@pytest.fixture(scope="module")
def trained(repository):
    flags = ("--head", "mlp", "--transforms", "random_flip", "normalize")
    return train(repository, "output/base/seed1", "USE_CUDA", "False", *FEW, "base", flags=flags)


def test_it_trains_on_base_classes_and_writes_the_family_s_files(repository, trained):
    assert "backbone: Small/8, head: mlp" in trained
    assert "TRANSFORMS: ['random_flip', 'normalize']" in trained
    assert "epoch [3/3] batch [2/2]" in trained and "Finish training" in trained
    folder = repository / "output" / "base" / "seed1" / "prompt_learner"
    assert (folder / "checkpoint").read_text() == "model.pth.tar-3\n"
    state = torch.load(folder / "model.pth.tar-3", weights_only=False)["state_dict"]
    assert state["ctx"].shape == (4, 32)
    assert (repository / "DATA" / "shapes" / "split_fewshot" / "shot_4-seed_1.pkl").is_file()


@pytest.mark.slow
def test_its_model_is_tested_on_new_classes_and_the_log_is_parsed(repository, trained):
    flags = ("--model-dir", "output/base/seed1", "--load-epoch", "3", "--eval-only")
    printed = train(repository, "output/new/seed1", *FEW, "new", flags=flags)
    assert "Loading preprocessed few-shot data" in printed and "(epoch = 3)" in printed
    accuracy = float(printed.split("* accuracy: ")[1].split("%")[0])
    parsed = run(repository, "parse_test_res.py", "output/new", "--test-log")
    assert f"* accuracy: {accuracy:.2f}% +- 0.00%" in parsed
    assert "* accuracy: " in run(repository, "parse_test_res.py", "output/base")


@pytest.mark.slow
def test_with_several_gpus_it_trains_wrapped_on_batches_by_domain(repository):
    settings = ("DATALOADER.TRAIN_X.SAMPLER", "RandomDomainSampler", "DATALOADER.TRAIN_X.N_DOMAIN", "2")
    printed = train(repository, "output/styles", *settings, flags=DOMAINS, dataset="styles", before=SEVERAL_GPUS)
    assert "Multiple GPUs detected (n_gpus=2)" in printed
    assert "epoch [3/3] batch [8/8]" in printed  # 2 of the 16 images of the smaller domain in each
    assert "* accuracy: " in printed
    state = torch.load(repository / "output/styles/prompt_learner/model.pth.tar-3", weights_only=False)["state_dict"]
    assert {*state} == {"ctx", "token_prefix", "token_suffix"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler, settings", [("SeqDomainSampler", ()), ("RandomClassSampler", ("DATALOADER.TRAIN_X.N_INS", "2"))]
)
def test_the_other_samplers_of_dassl_serve_it(repository, sampler, settings):
    settings = ("DATALOADER.TRAIN_X.SAMPLER", sampler, *settings, "OPTIM.MAX_EPOCH", "1")
    printed = train(repository, f"output/{sampler}", *settings, flags=DOMAINS, dataset="styles")
    assert "epoch [1/1] batch [" in printed and "* accuracy: " in printed


def test_a_trainer_that_registers_no_model_is_evaluated(repository):
    printed = train(repository, "output/zero", *FEW, "new", flags=("--eval-only",), trainer="SmallZeroshot")
    assert "* accuracy: " in printed
