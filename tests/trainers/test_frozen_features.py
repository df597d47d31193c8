"""Methods with a frozen image side train and test on cached features: same bits, no image tower, no decoding."""

import json
import shutil

import pytest
import torch
from PIL import Image

import datasets  # noqa: F401  (registers the built-in datasets)
import trainers
from basics import UserError
from clip.towers import CLIP
from dassl.config import get_cfg_default, merge
from dassl.data import feature_loader
from dassl.engine import build_trainer
from trainers.base import PromptTrainer
from trainers.rpo import RPOCLIP

METHODS = {
    "ZeroshotCLIP": (),
    "LP": (),
    "LinearProbeCLIP": (),
    "CoOp": (),
    "CoCoOp": (),
    "RPO": ("TRAINER.RPO.PROMPTS", "text", "TRAINER.RPO.K", 2),
}
SLOW = {
    "CLIPLoRA": ("TRAINER.CLIPLORA.ENCODER", "text"),
    "DePT": (),
    "TipAdapterF": ("TRAINER.TIPADAPTER.AUGMENT_EPOCH", 2),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Use a separate feature cache for each test, and the shared cache of the built-in datasets."""
    monkeypatch.setattr(feature_loader, "cache_dir", lambda *parts: tmp_path.joinpath("cache", *parts))
    return tmp_path / "cache"


def trainer(folder, method, *opts):
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    settings = ["TRAINER.NAME", method, "SEED", 1, "OUTPUT_DIR", str(folder), "DATASET.NUM_SHOTS", 2, "VERBOSE", False]
    settings += ["OPTIM.MAX_EPOCH", 2, "DATASET.SUBSAMPLE_CLASSES", "base", "DATALOADER.NUM_WORKERS", 0]
    settings += ["DATALOADER.TRAIN_X.BATCH_SIZE", 4, *(METHODS | SLOW).get(method, ()), *opts]
    merge(cfg, ["configs/datasets/braille.yaml", f"configs/trainers/{method}/tiny.yaml"], settings)
    return build_trainer(cfg)


def run(folder, method, *opts):
    """Train and test; return the digests of the prompts, the metrics, and the losses."""
    trainer(folder, method, *opts).train()
    results = json.loads((folder / "results.json").read_text())
    losses = (
        [row.split(",")[:3] for row in (folder / "metrics.csv").read_text().splitlines()[1:]]
        if results["epochs"]
        else []
    )
    return results["prompts_sha256"], results["metrics"], losses


def forbid_the_tower(monkeypatch):
    """Fail if the image tower runs on pictures; results.json counts its operations on one without content."""
    monkeypatch.setattr(CLIP, "encode_image", lambda *_: pytest.fail("the image tower ran"))
    monkeypatch.setattr(PromptTrainer, "count_gflop", lambda _: None)


@pytest.mark.parametrize("method", [*METHODS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_an_empty_a_filled_and_no_cache_give_the_same_bits(tmp_path, cache, method, monkeypatch):
    without = run(tmp_path / "without", method, "DATALOADER.FEATURES_GIB", 0.0)
    assert not cache.exists()
    assert run(tmp_path / "empty", method) == without
    forbid_the_tower(monkeypatch)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    assert run(tmp_path / "filled", method) == without


def test_one_method_fills_the_cache_for_all_methods_and_settings(tmp_path, monkeypatch):
    run(tmp_path / "first", "CoOp")
    forbid_the_tower(monkeypatch)
    run(tmp_path / "second", "LP", "OPTIM.LR", 0.1, "DATALOADER.TRAIN_X.BATCH_SIZE", 3, "DATALOADER.TEST.BATCH_SIZE", 7)
    run(tmp_path / "third", "ZeroshotCLIP", "SEED", 5)


def test_a_resumed_run_without_the_cache_gives_the_same_bits(tmp_path, cache):
    whole = run(tmp_path / "whole", "CoOp")
    stopped = trainer(tmp_path / "stopped", "CoOp")
    stopped.after_epoch = lambda: (_ for _ in ()).throw(KeyboardInterrupt) if stopped.epoch else None
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    shutil.rmtree(cache)
    assert run(tmp_path / "stopped", "CoOp") == whole


@pytest.mark.parametrize("method", METHODS)
def test_features_instead_of_images_give_the_same_logits(tmp_path, method):
    built, images = trainer(tmp_path, method), torch.randn(3, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(built.model(built.frozen_features(images)), built.model(images))


@pytest.mark.parametrize("method", ["RPO", "VPT", "MaPLe", "IVLP", "SEP"])
def test_methods_with_image_prompts_get_images(tmp_path, method):
    built = trainer(tmp_path, method, *(("TRAINER.RPO.PROMPTS", "both") if method == "RPO" else ()))
    assert not built.model.frozen_image_encoder and next(iter(built.test_loader))["img"].dim() == 4


POOL = ("INPUT.VIEWS", 2, "OPTIM.MAX_EPOCH", 4, "TRAINER.RPO.PROMPTS", "both")


def test_rpo_gives_the_same_gradients_for_a_cached_image(tmp_path):
    model = trainer(tmp_path, "RPO", "TRAINER.RPO.PROMPTS", "both").model
    images, losses, gradients = torch.randn(3, 3, 40, 40), [], []
    for given in (images, model.image_memory(images)):
        losses.append(model(given).square().mean())
        gradients.append(torch.autograd.grad(losses[-1], list(model.prompt_learner.parameters())))
    torch.testing.assert_close(losses[0], losses[1])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_rpo_encodes_its_views_once_and_resumes_to_the_same_bits(tmp_path, monkeypatch):
    encoded = []
    image_memory = RPOCLIP.image_memory
    monkeypatch.setattr(RPOCLIP, "image_memory", lambda *a: encoded.append(len(a[1])) or image_memory(*a))
    whole = run(tmp_path / "whole", "RPO", *POOL)
    assert sum(encoded) == 2 * len(trainer(tmp_path / "other", "RPO", *POOL).train_loader_x.dataset)
    stopped = trainer(tmp_path / "stopped", "RPO", *POOL)
    stopped.after_epoch = lambda: (_ for _ in ()).throw(KeyboardInterrupt) if stopped.epoch == 2 else None
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert run(tmp_path / "stopped", "RPO", *POOL) == whole


def test_views_that_need_too_much_memory_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"INPUT.VIEWS: expected .* at most 0.0001 GiB .*, got .* GiB for 2 views of"):
        trainer(tmp_path, "RPO", *POOL, "INPUT.VIEWS_GIB", 0.0001)
