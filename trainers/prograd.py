"""ProGrad: Zhu et al., Prompt-aligned Gradient for Prompt Tuning, arXiv 2205.14865.

CoOp, whose step must not oppose what zero-shot CLIP knows. G_d is the gradient of the cross-entropy, and G_g that of
the distance to zero-shot CLIP's predictions (section 3.2):

    L_kl      = - sum_i p_zs(i | x) log p(i | x)
    G_prograd = G_d                                         if G_d . G_g >= 0
                G_d - lambda (G_d . G_g / ||G_g||^2) G_g    otherwise               (eq. 4, 5)

As in the released code, the probabilities of L_kl are at temperature T and L_kl times T^2, and the context starts from
the words of the dataset's template: the last vectors are these words, those before them zero. Words that do not fit
into M tokens stay fixed between the context and the class name.

Attention pattern: as CoOp.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, context_vectors, encode, split_words
from dassl.config import Checks
from dassl.data import prompt_template
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.compat import remove_opposing
from trainers.context import GuidedContextCLIP, GuidedContextTrainer
from trainers.prompted import PromptedCLIP


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.PROGRAD."""
    cfg.TRAINER.PROGRAD = CfgNode()
    cfg.TRAINER.PROGRAD.LAMBDA = 1.0  # lambda, the share of the opposing part that is removed
    cfg.TRAINER.PROGRAD.T = 1.0  # temperature of the distance to zero-shot CLIP
    cfg.TRAINER.PROGRAD.N_CTX = 16  # M, the number of context vectors
    cfg.TRAINER.PROGRAD.CSC = False  # class-specific context: M vectors for each class
    cfg.TRAINER.PROGRAD.TEMPLATE_INIT = True  # start from the words of the dataset's template; else at random
    cfg.TRAINER.PROGRAD.CLASS_TOKEN_POSITION = "end"  # end, middle or front
    cfg.TRAINER.PROGRAD.PREC = "fp32"  # fp32, fp16, bf16 or amp


@TRAINER_REGISTRY.register()
class ProGrad(GuidedContextTrainer):
    """Prompt-aligned gradient: cross-entropy, with the projected gradient; only the context is trained."""

    config_node = "PROGRAD"

    def check_options(self, checks: Checks) -> None:
        super().check_options(checks)
        checks.at_least("LAMBDA", 0)
        checks.above("T", 0)
        batches = self.cfg.OPTIM.ACCUMULATE
        checks.expect(batches == 1, "OPTIM.ACCUMULATE", "1, because the gradient of each batch is changed", batches)

    def needs_whole_batches(self) -> bool:
        return True  # a process would project its part of the gradient alone

    def n_context(self) -> int:
        return self.options.N_CTX

    def words(self) -> tuple[str, str, str]:
        """Return the template's words before the class name, those that stay fixed, and what follows the name."""
        before, _, after = prompt_template(self.template()).partition("{}")
        words, n_ctx = before.strip() if self.options.TEMPLATE_INIT else "", self.n_context()
        padding = ["X"] * (n_ctx - len(words.split()))
        return words, split_words(" ".join([*padding, words]), n_ctx)[1], after.rstrip(".")

    def names(self, classnames: list[str]) -> list[str]:
        """Return each class name between the words that stay fixed."""
        _, fixed, after = self.words()
        return [f"{fixed} {name}{after if self.options.TEMPLATE_INIT else ''}".strip() for name in classnames]

    def fixed_words(self, classnames: list[str]) -> list[str]:
        return [f"{name}." for name in self.names(classnames)]

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        n_ctx, (words, *_) = self.n_context(), self.words()
        shape = (len(classnames), n_ctx) if self.options.CSC else (n_ctx,)
        ctx = context_vectors(clip_model, "", shape)
        if words:
            last = context_vectors(clip_model, words, (len(encode(words)),))[: min(len(words.split()), n_ctx)]
            ctx = nn.Parameter(torch.zeros_like(ctx))
            ctx.data[..., n_ctx - len(last) :, :] = last
        return GuidedContextCLIP(clip_model, self.names(classnames), self.fixed_texts(classnames), self.options, ctx)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        model, t = self.model, self.options.T
        f = model.image_features(images)
        logits, zero_shot = model.logits(f, model.text_features()).float(), model.logits(f, model.frozen).float()
        ce = self.cross_entropy(logits, labels)
        kl = t**2 * F.cross_entropy(logits / t, (zero_shot / t).softmax(dim=-1))
        self.trained = [p for p in model.prompt_learner.parameters() if p.requires_grad]
        self.general = torch.autograd.grad(kl, self.trained, retain_graph=True)  # G_g
        self.loss_parts = {"ce": ce.detach(), "kl": kl.detach()}
        return ce, logits

    def model_backward(self, loss: Tensor) -> None:
        super().model_backward(loss)
        if not self.step_skipped:
            remove_opposing(self.trained, self.general, self.options.LAMBDA)
