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

from yacs.config import CfgNode

from basics import notify
from clip import CLIP
from dassl.engine import TRAINER_REGISTRY
from trainers.context import ContextCLIP, ContextTrainer
from trainers.prompted import PromptedCLIP


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.COOP."""
    cfg.TRAINER.COOP = CfgNode()
    cfg.TRAINER.COOP.N_CTX = 16  # M, the number of context vectors
    cfg.TRAINER.COOP.CSC = False  # class-specific context: M vectors for each class
    cfg.TRAINER.COOP.CTX_INIT = ""  # words to start from, "a photo of a"; they replace N_CTX and CSC
    cfg.TRAINER.COOP.CLASS_TOKEN_POSITION = "end"  # end, middle or front
    cfg.TRAINER.COOP.PREC = "fp32"  # fp32, fp16, bf16 or amp


@TRAINER_REGISTRY.register()
class CoOp(ContextTrainer):
    """Context optimization: cross-entropy; only the context is trained."""

    config_node = "COOP"
    static_step = True

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        if self.options.CSC and self.options.CTX_INIT:
            notify("TRAINER.COOP.CSC has no effect: as in the released code, CTX_INIT sets one context for all classes")
        return ContextCLIP(clip_model, classnames, self.options)
