"""DePT: Zhang et al., DePT: Decoupled Prompt Tuning, arXiv 2309.07439, on CoOp.

What is specific to the trained classes goes to a linear head of its own, next to CoOp's cosines. It classifies the
features f of images and t_y of the texts of their labels, not normalized, after channel-wise transformations:

    h(f) = W (gamma f + beta) + b       h(t_y) = W (gamma' t_y + beta') + b
    L    = (1 - lambda) CE(cos(f, t) / tau) + lambda CE(h), the mean over h(f) and h(t_y)

Logits are (1 - lambda) cos(f, t) / tau + lambda h(f), or the cosines alone if the head does not know all classes. As in
the released code, the learning rate of the new parameters is 6.5 times that of the context.

Attention pattern: as CoOp.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from basics import UserError
from clip import CLIP, context_vectors
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.context import ContextCLIP, ContextTrainer
from trainers.prompted import PromptedCLIP, class_keys


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.DEPT."""
    cfg.TRAINER.DEPT = CfgNode()
    cfg.TRAINER.DEPT.N_CTX = 16  # M, the number of context vectors
    cfg.TRAINER.DEPT.CTX_INIT = ""  # words to start from, "a photo of a"; they replace N_CTX
    cfg.TRAINER.DEPT.CLASS_TOKEN_POSITION = "end"  # end, middle or front
    cfg.TRAINER.DEPT.W = 0.7  # lambda, the share of the head
    cfg.TRAINER.DEPT.LR_MULT = 6.5  # learning rate of the head and the transformations / that of the context
    cfg.TRAINER.DEPT.PREC = "fp32"  # fp32, fp16, bf16 or amp


class Transformation(nn.Module):
    """The channel-wise transformation: `scale` (gamma) and `bias` (beta), both (D,)."""

    def __init__(self, width: int):
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * features + self.bias


class PromptLearner(nn.Module):
    """The context, the transformations, and the head, whose rows stand for the classes with the keys `head_classes`.

    A released file does not name its classes. If it has as many, it has those at hand unless not `trained_on_them`.
    """

    head_classes: Tensor

    def __init__(self, ctx: nn.Parameter, width: int, keys: Tensor, trained_on_them: bool):
        super().__init__()
        self.ctx, self.trained_on_them = ctx, trained_on_them
        self.film_lp_img, self.film_lp_text = Transformation(width), Transformation(width)
        self.linear_probe_proj = nn.Linear(width, len(keys))
        self.register_buffer("head_classes", keys)

    def resize(self, tensors: Mapping[str, Tensor]) -> None:
        """Make room for the head of a checkpoint, whose classes may be others."""
        weight = next((x for name, x in tensors.items() if name.endswith("linear_probe_proj.weight")), None)
        keys, named = self.head_classes, any(name.endswith("head_classes") for name in tensors)
        if weight is not None and weight.dim() == 2 and len(weight) != len(keys):
            self.linear_probe_proj = nn.Linear(self.film_lp_img.scale.numel(), len(weight), device=keys.device)
            keys = keys.new_zeros(len(weight))
        self.register_buffer("head_classes", keys if self.trained_on_them else keys * 0, persistent=named)

    def rows(self, keys: Tensor) -> Tensor | None:
        """Return the head's rows of the classes with these keys, (C,); None if it does not know all of them."""
        if torch.equal(keys, self.head_classes):
            return torch.arange(len(keys), device=keys.device)
        ordered, order = self.head_classes.sort()
        return order[torch.searchsorted(ordered, keys)] if torch.isin(keys, ordered).all() else None


class DePTCLIP(ContextCLIP):
    """CLIP with a learned context and a head. `rows`, of the classes in the head, are found with the text features."""

    keys: Tensor
    rows: Tensor | None = None

    def __init__(self, clip_model: CLIP, classnames: list[str], trained_on_them: bool, options: CfgNode):
        ctx = context_vectors(clip_model, options.CTX_INIT, (options.N_CTX,))
        super().__init__(clip_model, classnames, options, ctx)
        keys = class_keys(classnames)
        self.register_buffer("keys", keys, persistent=False)
        self.prompt_learner = PromptLearner(ctx, clip_model.text_projection.shape[1], keys.clone(), trained_on_them)
        self.share = options.W

    def text_features(self) -> Tensor:
        self.rows = self.prompt_learner.rows(self.keys)
        return super().text_features()

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.tower_features(images), dim=-1)

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        learner, f = self.prompt_learner, self.tower_features(images)
        cosines = super().forward(f, text)
        if self.rows is None:
            return cosines
        head = learner.linear_probe_proj(learner.film_lp_img(f))
        return (1 - self.share) * cosines + self.share * head[:, self.rows]


@TRAINER_REGISTRY.register()
class DePT(ContextTrainer):
    """Decoupled prompt tuning: two cross-entropies; the context, the transformations, and the head are trained."""

    model: DePTCLIP
    config_node = "DEPT"
    static_step = True
    checkpoint_name = "PromptLearner"
    unit_length_features = False

    def check_options(self, checks: Checks) -> None:
        super().check_options(checks)
        checks.holds("W", 0 < self.options.W < 1, "between 0 and 1")
        checks.above("LR_MULT", 0)

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return DePTCLIP(clip_model, classnames, self.cfg.DATASET.SUBSAMPLE_CLASSES != "new", self.options)

    def parameter_groups(self, learner: nn.Module) -> list[dict] | None:
        if not torch.equal(learner.get_buffer("head_classes"), self.model.keys):  # of MODEL.INIT_WEIGHTS
            raise UserError("MODEL.INIT_WEIGHTS: expected a head of the same classes, got others. Leave the key out.")
        learner.register_buffer("head_classes", self.model.keys.clone())  # saved even if a released file has none
        new = [p for p in learner.parameters() if p is not learner.ctx]
        return [{"params": [learner.ctx]}, {"params": new, "lr": self.options.LR_MULT * self.cfg.OPTIM.LR}]

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        model, learner, share = self.model, self.model.prompt_learner, self.options.W
        f, t = model.tower_features(images), model.in_blocks(model.projected_features, model.text_block)
        cosines = model.logits(F.normalize(f, dim=-1), F.normalize(t, dim=-1))
        t_of_labels = labels @ t if labels.dim() == 2 else t[labels]  # of mixed images: mixed
        both = learner.linear_probe_proj(torch.cat([learner.film_lp_img(f), learner.film_lp_text(t_of_labels)]))
        ce, head = self.cross_entropy(cosines, labels), self.cross_entropy(both, torch.cat([labels, labels]))
        self.loss_parts = {"ce": ce.detach(), "head": head.detach()}
        return (1 - share) * ce + share * head, (1 - share) * cosines + share * both[: len(f)]
