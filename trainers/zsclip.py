"""Zero-shot CLIP: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2103.00020.

Nothing is trained: an image is assigned to the class with the most similar text ("a photo of a cat."). If a class has
several texts, their unit-length features are averaged (section 3.1.4, prompt ensembling).

Attention pattern: the words of a text attend to themselves, causally; the patches of an image to each other.
"""

from __future__ import annotations

from open_clip import zero_shot_metadata
from yacs.config import CfgNode

from clip import CLIP
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.prompted import FixedTextCLIP, PromptedCLIP

# The templates of CLIP's authors for ImageNet: the seven that they selected, and all 80.
TEMPLATES = {
    "selected": zero_shot_metadata.SIMPLE_IMAGENET_TEMPLATES,
    "imagenet": zero_shot_metadata.OPENAI_IMAGENET_TEMPLATES,
}


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.ZEROSHOTCLIP2."""
    cfg.TRAINER.ZEROSHOTCLIP2 = CfgNode()
    cfg.TRAINER.ZEROSHOTCLIP2.TEMPLATES = "selected"  # selected: 7 of CLIP's templates for ImageNet; imagenet: all 80
    cfg.TRAINER.ZEROSHOTCLIP2.PREC = "fp32"  # fp32, fp16, bf16 or amp


class ZeroshotModel(FixedTextCLIP):
    """CLIP with both sides frozen."""

    frozen_image_encoder = True


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(PromptTrainer):
    """Zero-shot CLIP with one text per class, from the template of the dataset, or those of DATASET.CLASS_TEXTS."""

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return ZeroshotModel(clip_model, self.fixed_texts(classnames))


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """Zero-shot CLIP with an ensemble of texts per class: from CLIP's templates, and from that of the dataset.

    As in CoOp's released code, ImageNet has no template of its own here.
    """

    config_node = "ZEROSHOTCLIP2"

    def check_options(self, checks: Checks) -> None:
        checks.one_of("TEMPLATES", TEMPLATES)

    def fixed_texts(self, classnames: list[str]) -> list[list[str]]:
        texts = [[template(name) for template in TEMPLATES[self.options.TEMPLATES]] for name in classnames]
        if self.cfg.DATASET.NAME == "ImageNet":
            return texts
        return [own + more for own, more in zip(texts, super().fixed_texts(classnames), strict=True)]
