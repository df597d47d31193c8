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

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from basics import log
from clip import CLIP
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.cache import CachedImages, CacheTrainer
from trainers.features import collect, mean_of_views
from trainers.prompted import FixedTextCLIP, PromptedCLIP
from trainers.search import grid_values, most_accurate

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


class Cache(CachedImages):
    """The keys and labels of the training images, `alpha`, and `beta`."""

    alpha: Tensor
    beta: Tensor

    def __init__(self, n: int, width: int, options: CfgNode, is_trained: bool):
        super().__init__(n, width, is_trained)
        self.register_buffer("alpha", torch.tensor(options.ALPHA))
        self.register_buffer("beta", torch.tensor(options.BETA))

    def lookup(self, affinity: Tensor, beta: Tensor | float, n_classes: int) -> Tensor:
        """Sum A over the keys of each class: affinities (B, N) -> (B, C)."""
        return (-beta * (1 - affinity)).exp() @ F.one_hot(self.labels, n_classes).to(affinity)


class TipAdapterCLIP(FixedTextCLIP):
    """CLIP with a cache of training images."""

    frozen_image_encoder = True
    per_class_parameters = True

    def __init__(self, clip_model: CLIP, texts: list[list[str]], n: int, options: CfgNode, is_trained: bool):
        super().__init__(clip_model, texts)
        self.prompt_learner = Cache(n, clip_model.text_projection.shape[1], options, is_trained)

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        f, cache = self.image_features(images), self.prompt_learner
        found = cache.lookup(f @ cache.keys.t(), cache.beta, self.n_classes)
        return self.logits(f, self.features if text is None else text) + cache.alpha * found


class TipAdapterTrainer(CacheTrainer):
    """Fills the cache with the training images, and searches beta and alpha on the validation images."""

    model: TipAdapterCLIP
    config_node = "TIPADAPTER"
    checkpoint_name = "tip_adapter"

    def check_options(self, checks: Checks) -> None:
        for key, least in (("SEARCH_SCALE", LOWEST), ("SEARCH_STEP", 1)):
            value = self.options[key]
            checks.holds(key, len(value) == 2 and min(value) >= least, f"two numbers of at least {least}")
        checks.at_least(("ALPHA", "BETA"), 0)
        checks.at_least("AUGMENT_EPOCH", 1)

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        loader = getattr(self, "train_loader_x", None)  # a trained model has no images
        n = len(loader.dataset) if loader is not None else 0
        return TipAdapterCLIP(clip_model, self.fixed_texts(classnames), n, self.options, not self.is_fitted)

    def before_train(self) -> None:
        self.model.prompt_learner.fill(*mean_of_views(self, self.options.AUGMENT_EPOCH))
        super().before_train()  # restores what was saved

    @torch.no_grad()
    def search(self) -> dict[str, float]:
        """Set beta and alpha to the most accurate of the grid; return {"acc": that on the validation images, in %}."""
        model, cache, options = self.model, self.model.prompt_learner, self.options
        if not options.SEARCH or self.val_loader is None:
            log(f"beta {options.BETA}, alpha {options.ALPHA}: not searched")
            return {}
        f, labels = (each.to(self.device) for each in collect(self, self.val_loader))
        zero_shot, affinity = model.logits(f, model.features), f @ cache.keys.t()
        betas, alphas = map(grid_values, (LOWEST, LOWEST), options.SEARCH_SCALE, options.SEARCH_STEP)
        found = ((beta, cache.lookup(affinity, beta, self.num_classes)) for beta in betas)
        candidates = (((beta, alpha), zero_shot + alpha * each) for beta, each in found for alpha in alphas)
        (beta, alpha), best = most_accurate(candidates, labels)
        cache.beta.fill_(beta)
        cache.alpha.fill_(alpha)
        log(f"beta {cache.beta.item():.4g}, alpha {cache.alpha.item():.4g}: {best:.2f}% of the validation images")
        return {"acc": best}


@TRAINER_REGISTRY.register()
class TipAdapter(TipAdapterTrainer):
    """Training-free: there are no steps, so OPTIM is not used."""

    honors_loss_options = False
    is_fitted = True
    released_keys = "keys"

    def build_optimizer(self, learner: nn.Module) -> tuple[None, None]:
        self.max_epoch = 1
        return None, None

    def run_epoch(self) -> None:
        self.record.progress.add_step(self.search())


@TRAINER_REGISTRY.register()
class TipAdapterF(TipAdapterTrainer):
    """Cross-entropy; the keys are trained, from those of Tip-Adapter."""

    static_step = True
    needs_last_epoch = True  # it searches beta and alpha
    released_keys = "best_F"

    def after_epoch(self) -> None:
        if self.epoch + 1 == self.max_epoch:
            self.search()  # before the checkpoint is written
        super().after_epoch()
