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


def train(repository, output, *more, dataset="shapes", trainer="PromptCoOp", before=""):
    files = ("--dataset-config-file", f"configs/datasets/{dataset}.yaml")
    files += ("--config-file", "configs/trainers/PromptCoOp/small_ep3.yaml")
    start = ("--root", "DATA", "--seed", "1", "--trainer", trainer, *files, "--output-dir", output)
    return run(repository, "train.py", *start, *more, before=before)


FEW = ("DATASET.NUM_SHOTS", "4", "DATASET.SUBSAMPLE_CLASSES")


@pytest.fixture(scope="module")
def trained(repository):
    flags = ("--head", "mlp", "--transforms", "random_flip", "normalize")
    return train(repository, "output/base/seed1", *flags, "USE_CUDA", "False", *FEW, "base")


def test_it_trains_on_the_base_classes_and_writes_the_family_s_files(repository, trained):
    assert "backbone: Small/8, head: mlp" in trained
    assert "+ random flip" in trained and "random resized crop" not in trained
    assert "epoch [3/3] batch [2/2]" in trained and "Finish training" in trained
    folder = repository / "output" / "base" / "seed1" / "prompt_learner"
    assert (folder / "checkpoint").read_text() == "model.pth.tar-3\n"
    state = torch.load(folder / "model.pth.tar-3", weights_only=False)["state_dict"]
    assert state["ctx"].shape == (4, 32)
    assert (repository / "DATA" / "shapes" / "split_fewshot" / "shot_4-seed_1.pkl").is_file()


def test_the_model_is_tested_on_new_classes_and_the_log_is_parsed(repository, trained):
    more = ("--model-dir", "output/base/seed1", "--load-epoch", "3", "--eval-only")
    printed = train(repository, "output/new/seed1", *more, *FEW, "new")
    assert "Loading preprocessed few-shot data" in printed and "(epoch = 3)" in printed
    accuracy = printed.split("* accuracy: ")[1].split("%")[0]
    assert f"* accuracy: {float(accuracy):.2f}% +- 0.00%" in run(
        repository, "parse_test_res.py", "output/new", "--test-log"
    )
    run(repository, "parse_test_res.py", "output/base")


def test_with_several_gpus_it_trains_wrapped_on_batches_by_domain(repository):
    domains = ("--source-domains", "plain", "dark", "--target-domains", "inverted")
    sampler = ("DATALOADER.TRAIN_X.SAMPLER", "RandomDomainSampler", "DATALOADER.TRAIN_X.N_DOMAIN", "2")
    printed = train(repository, "output/styles", *domains, *sampler, dataset="styles", before=SEVERAL_GPUS)
    assert "Multiple GPUs detected (n_gpus=2)" in printed
    assert "epoch [3/3] batch [8/8]" in printed and "* accuracy:" in printed  # 16 images of the domain that runs out
    state = torch.load(repository / "output/styles/prompt_learner/model.pth.tar-3", weights_only=False)["state_dict"]
    assert {*state} == {"ctx", "token_prefix", "token_suffix"}


@pytest.mark.parametrize("sampler, options", [("SeqDomainSampler", ()), ("RandomClassSampler", ("N_INS", "2"))])
def test_the_other_samplers_of_dassl_serve_it(repository, sampler, options):
    domains = (
        "--source-domains",
        "plain",
        "dark",
        "--target-domains",
        "inverted",
        "DATALOADER.TRAIN_X.SAMPLER",
        sampler,
    )
    more = ("DATALOADER.TRAIN_X." + options[0], *options[1:]) if options else ()
    printed = train(repository, f"output/{sampler}", *domains, *more, "OPTIM.MAX_EPOCH", "1", dataset="styles")
    assert "epoch [1/1] batch [" in printed and "* accuracy:" in printed


def test_a_trainer_that_registers_no_model_is_evaluated(repository):
    printed = train(repository, "output/zero", "--eval-only", *FEW, "new", trainer="SmallZeroshot")
    assert "* accuracy:" in printed
