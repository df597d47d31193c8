"""Tip-Adapter: Zhang et al., Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, arXiv 2207.09519.

A cache of the N training images: their features are the keys, their labels L (one-hot) the values. A test image with
feature f looks up how close it is to each key (section 3.1):

    A      = exp(-beta (1 - f F_train^T))              (eq. 4)
    logits = alpha A L_train + f W_c^T / tau           (eq. 5), W_c: the class texts

Tip-Adapter trains nothing; Tip-Adapter-F trains the keys, by cross-entropy (section 3.2). As in the released code, a
key is the normalized mean of the features of several augmented views of its image, and beta and alpha are those with
the highest accuracy on the validation images, searched on a grid at the end.

Attention pattern: as zero-shot CLIP on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from basics import NotApplicable, log
from clip import CLIP
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.checkpoints import load_trained
from dassl.metrics import compute_accuracy
from trainers.base import PromptTrainer
from trainers.features import augmented_views, collect, read_matrix
from trainers.prompted import FixedTextCLIP, PromptedCLIP

LOWEST = 0.1  # of the grid


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.TIPADAPTER, of both methods."""
    cfg.TRAINER.TIPADAPTER = CfgNode()
    cfg.TRAINER.TIPADAPTER.ALPHA = 1.17  # weight of the cache, unless it is searched
    cfg.TRAINER.TIPADAPTER.BETA = 1.0  # sharpness of the cache, unless it is searched
    cfg.TRAINER.TIPADAPTER.AUGMENT_EPOCH = 10  # augmented views of an image, whose mean is its key
    cfg.TRAINER.TIPADAPTER.SEARCH = True  # search beta and alpha on the validation images
    cfg.TRAINER.TIPADAPTER.SEARCH_SCALE = [7.0, 3.0]  # largest beta and alpha of the grid
    cfg.TRAINER.TIPADAPTER.SEARCH_STEP = [200, 20]  # values of beta and alpha on the grid
    cfg.TRAINER.TIPADAPTER.PREC = "fp32"  # fp32, fp16, bf16 or amp


class Cache(nn.Module):
    """The keys, `adapter.weight` (N, D), with the `labels` (N,) of their images, `alpha`, and `beta`.

    The keys are a parameter if they are trained, and a buffer otherwise.
    """

    labels: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, n: int, width: int, options: CfgNode, is_trained: bool):
        super().__init__()
        self.adapter, self.is_trained = nn.Module(), is_trained
        self.register_keys(torch.zeros(n, width))
        self.register_buffer("labels", torch.zeros(n, dtype=torch.long))
        self.register_buffer("alpha", torch.tensor(options.ALPHA))
        self.register_buffer("beta", torch.tensor(options.BETA))

    def register_keys(self, keys: Tensor) -> None:
        if self.is_trained:
            self.adapter.register_parameter("weight", nn.Parameter(keys))
        else:
            self.adapter.register_buffer("weight", keys)

    def resize(self, tensors: Mapping[str, Tensor]) -> None:
        """Make room for the keys of a checkpoint: their number is that of its training images."""
        keys = tensors.get("adapter.weight")
        if keys is not None and keys.dim() == 2 and len(keys) != len(self.keys):  # else the optimizer has the parameter
            self.register_keys(self.keys.new_zeros(len(keys), self.keys.shape[1]))
            self.labels = self.labels.new_zeros(len(keys))

    @property
    def keys(self) -> Tensor:
        """The keys, (N, D)."""
        return cast(Tensor, self.adapter.weight)

    def lookup(self, affinity: Tensor, beta: Tensor | float, n_classes: int) -> Tensor:
        """Sum A over the keys of each class: affinities (B, N) -> (B, C)."""
        return (-beta * (1 - affinity)).exp() @ F.one_hot(self.labels, n_classes).to(affinity)


class TipAdapterCLIP(FixedTextCLIP):
    """CLIP with a cache of training images."""

    frozen_image_encoder = True
    per_class_parameters = True

    def __init__(
        self, clip_model: CLIP, texts: Sequence[str | Sequence[str]], n: int, options: CfgNode, is_trained: bool
    ):
        super().__init__(clip_model, texts)
        self.prompt_learner = Cache(n, clip_model.text_projection.shape[1], options, is_trained)

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        f, cache = self.image_features(images), self.prompt_learner
        found = cache.lookup(f @ cache.keys.t(), cache.beta, self.n_classes)
        return self.logits(f, self.features if text is None else text) + cache.alpha * found


class CacheTrainer(PromptTrainer):
    """Fills the cache with the training images, and searches beta and alpha on the validation images."""

    model: TipAdapterCLIP
    config_node = "TIPADAPTER"
    checkpoint_name = "tip_adapter"
    released_keys = "keys"

    def check_options(self, checks: Checks) -> None:
        checks.at_least("AUGMENT_EPOCH", 1)
        for key, least in (("SEARCH_SCALE", LOWEST), ("SEARCH_STEP", 1)):
            value = self.options[key]
            checks.holds(key, len(value) == 2 and min(value) >= least, f"two numbers of at least {least}")

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        loader = getattr(self, "train_loader_x", None)  # a trained model has no images
        n = len(loader.dataset) if loader is not None else 0
        return TipAdapterCLIP(clip_model, self.fixed_texts(classnames), n, self.options, not self.is_fitted)

    def released_file(self, directory, name: str) -> Path:
        """Return where the released code saves a part of the cache."""
        return Path(directory or "") / f"{name}_{self.cfg.DATASET.NUM_SHOTS}shots.pt"

    def locate_model(self, directory, epoch=None):
        is_released = self.released_file(directory, "values").is_file()
        return (directory, epoch) if is_released else super().locate_model(directory, epoch)

    def load_model(self, directory, epoch=None) -> int | None:
        """Load the cache of a run, or a released one: keys_16shots.pt or best_F_16shots.pt, with values_16shots.pt.

        Released files name neither classes nor alpha and beta, which are searched again.
        """
        values_file, keys_file = (self.released_file(directory, name) for name in ("values", self.released_keys))
        if not values_file.is_file():
            return super().load_model(directory, epoch)
        values, keys, cache = read_matrix(values_file), read_matrix(keys_file), self.model.prompt_learner
        if values.shape[1] != self.num_classes:
            raise NotApplicable(f"{values_file}: expected {self.num_classes} classes, got {values.shape[1]}.")
        keys = keys.t() if self.released_keys == "keys" else keys
        own = {"alpha": cache.alpha, "beta": cache.beta}
        load_trained(cache, {"adapter.weight": keys, "labels": values.argmax(dim=1), **own}, keys_file)
        self.search()
        return None

    def before_train(self) -> None:
        self.fill()
        super().before_train()  # restores what was saved

    @torch.no_grad()
    def fill(self) -> None:
        """Set the keys and their labels to the training images."""
        features, labels = zip(*augmented_views(self, self.options.AUGMENT_EPOCH), strict=True)
        self.model.prompt_learner.keys.copy_(F.normalize(sum(features), dim=-1))
        self.model.prompt_learner.labels.copy_(labels[0])

    @torch.no_grad()
    def search(self) -> dict[str, float]:
        """Set beta and alpha to the most accurate of the grid; return {"acc": that on the validation images, in %}."""
        model, cache, options = self.model, self.model.prompt_learner, self.options
        if not options.SEARCH or self.val_loader is None:
            log(f"beta {options.BETA}, alpha {options.ALPHA}: not searched")
            return {}
        f, labels = (each.to(self.device) for each in collect(self, self.val_loader))
        zero_shot, affinity, best = model.logits(f, model.features), f @ cache.keys.t(), -1.0
        betas, alphas = (
            [LOWEST + i * (largest - LOWEST) / steps for i in range(steps)]
            for largest, steps in zip(options.SEARCH_SCALE, options.SEARCH_STEP, strict=True)
        )
        for beta in betas:
            found = cache.lookup(affinity, beta, self.num_classes)
            for alpha in alphas:
                accuracy = compute_accuracy(zero_shot + alpha * found, labels)[0].item()
                if accuracy > best:
                    best = accuracy
                    cache.beta.fill_(beta)
                    cache.alpha.fill_(alpha)
        log(f"beta {cache.beta.item():.4g}, alpha {cache.alpha.item():.4g}: {best:.2f}% of the validation images")
        return {"acc": best}


@TRAINER_REGISTRY.register()
class TipAdapter(CacheTrainer):
    """Training-free: there are no steps, so OPTIM is not used."""

    honors_loss_options = False
    is_fitted = True

    def build_optimizer(self, learner: nn.Module) -> tuple[None, None]:
        self.max_epoch = 1
        return None, None

    def run_epoch(self) -> None:
        self.record.progress.add_step(self.search())


@TRAINER_REGISTRY.register()
class TipAdapterF(CacheTrainer):
    """Cross-entropy; the keys are trained, from those of Tip-Adapter."""

    static_step = True
    needs_last_epoch = True  # it searches beta and alpha
    released_keys = "best_F"

    def after_epoch(self) -> None:
        if self.epoch + 1 == self.max_epoch:
            self.search()  # before the checkpoint is written
        super().after_epoch()
