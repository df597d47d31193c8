"""IVLP: independent prompts in both towers, the baseline of Khattak et al., MaPLe, arXiv 2210.03117 (table 1).

Each side has separate context vectors, replaced before each of its first J layers; nothing couples the sides. Depth 0
leaves a side unchanged: on the text side this is VPT, on the image side deep CoOp. The model is in
trainers/independent.py.

Attention pattern: as MaPLe.
"""

from __future__ import annotations

from yacs.config import CfgNode

from dassl.engine import TRAINER_REGISTRY
from trainers.independent import IndependentTrainer


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.IVLP."""
    cfg.TRAINER.IVLP = CfgNode()
    cfg.TRAINER.IVLP.N_CTX_TEXT = 2  # context vectors per text layer
    cfg.TRAINER.IVLP.N_CTX_VISION = 2  # context vectors per image layer
    cfg.TRAINER.IVLP.CTX_INIT = "a photo of a"  # the first N_CTX_TEXT tokens are learned, the others stay fixed
    cfg.TRAINER.IVLP.PROMPT_DEPTH_TEXT = 9  # text layers with new context; 0: none
    cfg.TRAINER.IVLP.PROMPT_DEPTH_VISION = 9  # image layers with new context; 0: none
    cfg.TRAINER.IVLP.PREC = "fp32"  # fp32, fp16, bf16 or amp


@TRAINER_REGISTRY.register()
class IVLP(IndependentTrainer):
    """Independent vision-language prompting: cross-entropy; all context vectors are trained."""

    config_node = "IVLP"
    static_step = True
