"""A toy method on random tensors: a trained linear layer after a frozen one."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dassl.config import get_cfg_default, merge
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer, trainer
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import set_random_seed, stream

CLASSES = ("ant", "bee", "cat")


class Items(torch.utils.data.Dataset):
    def __init__(self, purpose, n=12):
        self.purpose = purpose
        self.images = torch.randn(n, 4, generator=stream(0, purpose))
        self.labels = self.images[:, :3].argmax(dim=1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        # Noise from the global stream: without its state, a resumed run would differ.
        image = self.images[index] + 0.1 * torch.randn(4)
        return {"img": image, "label": self.labels[index], "domain": 0, "impath": f"/data/{self.purpose}/{index}.png"}


class FakeDataManager:
    """The part of `dassl.data.DataManager` that the engine uses."""

    has_val = True

    def __init__(self, cfg):
        self.dataset = SimpleNamespace(classnames=list(CLASSES), draw_hash="ab12", dataset_dir="/data")
        self.train_loader_x = torch.utils.data.DataLoader(Items("train"), batch_size=4, shuffle=True)
        self.train_loader_u = None
        self.val_loader = torch.utils.data.DataLoader(Items("val"), batch_size=5) if self.has_val else None
        self.test_loader = torch.utils.data.DataLoader(Items("test", 20), batch_size=5)
        self.num_classes = len(CLASSES)
        self.num_source_domains = 0
        self.lab2cname = dict(enumerate(CLASSES))


class Learner(nn.Module):
    """Trains ctx and scale; backbone is frozen, token_prefix depends on the class names, and steps counts."""

    def __init__(self, classes=3):
        super().__init__()
        self.backbone = nn.Linear(4, 4).requires_grad_(False)
        self.ctx = nn.Parameter(torch.randn(4, 3))
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("token_prefix", torch.zeros(classes, 1))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        if self.training:
            self.steps += 1
        return self.scale * self.backbone(images) @ self.ctx


@TRAINER_REGISTRY.register()
class Toy(TrainerX):
    """Dies at the step `killed_at` = (epoch, batch); in the steps `bad_at`, its loss is `bad`."""

    killed_at = None
    bad_at = ()
    bad = float("nan")

    def build_model(self):
        self.model = Learner().to(self.device)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("prompt_learner", self.model, self.optim, self.sched)

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def forward_backward(self, batch):
        if (self.epoch, self.batch_idx) == self.killed_at:
            raise KeyboardInterrupt
        images, labels = self.parse_batch_train(batch)
        logits = self.model(images)
        loss = nn.functional.cross_entropy(logits, labels)
        self.loss_parts = {"entropy": loss.detach(), "rest": 0.5}
        if (self.epoch, self.batch_idx) in self.bad_at:
            loss = loss * self.bad
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss, "acc": compute_accuracy(logits, labels)[0]}


@TRAINER_REGISTRY.register()
class ToyZeroShot(TrainerX):
    """Registers no model."""

    def build_model(self):
        self.frozen = nn.Linear(4, 3).to(self.device)

    def model_inference(self, images):
        return self.frozen(images)


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Return make(*opts, folder="run", kind="Toy"): a trainer whose output folder is tmp_path / folder."""
    monkeypatch.setattr(trainer, "DataManager", FakeDataManager)

    def make_trainer(*opts, folder="run", kind="Toy"):
        cfg = get_cfg_default()
        settings = ("TRAINER.NAME", kind, "OUTPUT_DIR", str(tmp_path / folder), "SEED", "1", "VERBOSE", "False")
        optim = ("OPTIM.NAME", "sgd", "OPTIM.LR", "0.1", "OPTIM.MAX_EPOCH", "4", "OPTIM.LR_SCHEDULER", "cosine")
        warmup = ("OPTIM.WARMUP_EPOCH", "1", "OPTIM.WARMUP_TYPE", "constant")
        merge(cfg, opts=(*settings, *optim, *warmup, *opts))
        cfg.freeze()
        set_random_seed(max(cfg.SEED, 0))
        return build_trainer(cfg)

    return make_trainer
