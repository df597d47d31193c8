"""CoOp: Zhou et al., Learning to Prompt for Vision-Language Models, arXiv 2109.01134.

The context words around a class name are learned. With M context vectors [V]_m, the text of class i is (section 3.2)

    end     t_i = [V]_1 ... [V]_M [CLASS]                          (eq. 2)
    middle  t_i = [V]_1 ... [V]_M/2 [CLASS] [V]_M/2+1 ... [V]_M    (eq. 4)
    front   t_i = [CLASS] [V]_1 ... [V]_M                          (the released code's third layout)

with one context for all classes, or one for each (CSC); p(y = i | x) = softmax_i(<g(t_i), f(x)> / tau)   (eq. 3).

Attention pattern: [SOS, context before the name] attends to itself; the rest of each text attends to it and to itself,
causally. What precedes the name therefore runs once for all classes. As in the released code, each text ends with a
period.
"""

from __future__ import annotations

from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, ClassWords, context_vectors
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.context import ContextTrainer, encode_around_context
from trainers.prompted import PromptedCLIP

POSITIONS = {"end": lambda m: m, "middle": lambda m: m // 2, "front": lambda m: 0}  # context vectors before the name


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.COOP."""
    cfg.TRAINER.COOP = CfgNode()
    cfg.TRAINER.COOP.N_CTX = 16  # M, the number of context vectors
    cfg.TRAINER.COOP.CSC = False  # class-specific context: M vectors for each class
    cfg.TRAINER.COOP.CTX_INIT = ""  # words to start from, "a photo of a"; they replace N_CTX and CSC
    cfg.TRAINER.COOP.CLASS_TOKEN_POSITION = "end"  # end, middle or front
    cfg.TRAINER.COOP.PREC = "fp32"  # fp32, fp16, bf16 or amp


class PromptLearner(nn.Module):
    """The context: `ctx` (M, text width), or (C, M, text width) with CSC."""

    def __init__(self, ctx: nn.Parameter):
        super().__init__()
        self.ctx = ctx


class CoOpCLIP(PromptedCLIP):
    """CLIP with a learned context in the class texts.

    Args:
        ctx: the initial context; None for the one that the options describe.
    """

    frozen_image_encoder = True

    def __init__(self, clip_model: CLIP, classnames: list[str], options: CfgNode, ctx: nn.Parameter | None = None):
        super().__init__(clip_model, len(classnames))
        if ctx is None:
            shape = (len(classnames), options.N_CTX) if options.CSC else (options.N_CTX,)
            ctx = context_vectors(clip_model, options.CTX_INIT, shape)
        self.prompt_learner = PromptLearner(ctx)
        n_ctx = self.prompt_learner.ctx.shape[-2]  # M
        self.per_class_parameters = self.prompt_learner.ctx.dim() == 3
        self.words = ClassWords(clip_model, classnames, n_ctx, POSITIONS[options.CLASS_TOKEN_POSITION](n_ctx))

    def class_features(self, classes: slice) -> Tensor:
        ctx, packed = self.prompt_learner.ctx, self.words.packed(classes)
        start, rest = packed.embed(ctx[classes][packed.class_of_row] if self.per_class_parameters else ctx[None])
        return encode_around_context(self.clip, packed, start, rest)


@TRAINER_REGISTRY.register()
class CoOp(ContextTrainer):
    """Context optimization: cross-entropy; only the context is trained."""

    config_node = "COOP"

    def check_options(self, checks: Checks) -> None:
        checks.one_of("CLASS_TOKEN_POSITION", POSITIONS)
        super().check_options(checks)

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        if self.options.CSC and self.options.CTX_INIT:
            print("TRAINER.COOP.CSC has no effect: as in the released code, CTX_INIT sets one context for all classes")
        return CoOpCLIP(clip_model, classnames, self.options)
