"""A trainer of any method on a small random CLIP and random images."""

import types

import pytest
import torch
from small_clip import save_small_clip
from torch.utils.data import DataLoader, Dataset

import dassl.engine.trainer
import trainers
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from tests.methods import METHODS, maker

CLASSNAMES = ["cat", "yellow_lab", "Boeing 747-400", "sea horse", "yin yang"]


class RandomImages(Dataset):
    def __init__(self, count, size):
        generator = torch.Generator().manual_seed(count)
        self.images = torch.randn(count, 3, size, size, generator=generator)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {"img": self.images[i], "label": i % len(CLASSNAMES), "impath": str(i), "index": i, "domain": 0}


@pytest.fixture
def small_backbone(tmp_path):
    """Save the small CLIP as a weights file."""
    return save_small_clip(tmp_path / "small.safetensors")


@pytest.fixture
def make_trainer(tmp_path, small_backbone, monkeypatch):
    """Return make_trainer(name, *opts, classnames=None, test_batch=7, output="run"): a trainer."""

    def make(name, *opts, classnames=None, test_batch=7, output="run"):
        names = classnames or CLASSNAMES

        class Manager:
            def __init__(self, cfg):
                self.dataset = types.SimpleNamespace(classnames=names, prompt="a photo of a {}.", draw_hash="none")
                self.train_loader_x = DataLoader(RandomImages(10, 24), batch_size=5)
                self.train_loader_u, self.plain_train_loader = None, self.train_loader_x
                self.val_loader = DataLoader(RandomImages(15, 24), batch_size=test_batch)
                self.test_loader = DataLoader(RandomImages(20, 24), batch_size=test_batch)
                self.num_classes, self.num_source_domains = len(names), 0
                self.lab2cname = dict(enumerate(names))

        monkeypatch.setattr(dassl.engine.trainer, "DataManager", Manager)
        cfg = get_cfg_default()
        trainers.extend_cfg(cfg)
        cfg.merge_from_list(
            ["TRAINER.NAME", name, "MODEL.BACKBONE.NAME", str(small_backbone), "OUTPUT_DIR", str(tmp_path / output)]
            + ["INPUT.SIZE", (24, 24), "SEED", 1, "OPTIM.NAME", "sgd", "OPTIM.LR", 0.01, "OPTIM.MAX_EPOCH", 3]
            + ["OPTIM.LR_SCHEDULER", "cosine", "DATASET.NAME", "Random"]
            + list(opts)
        )
        return build_trainer(cfg)

    return make


@pytest.fixture
def make(make_trainer):
    """Return make(name in METHODS, *opts, **options of make_trainer): a trainer."""
    return maker(make_trainer, METHODS)
