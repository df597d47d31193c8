"""VisionPrompt: a complete method in one file, as a template for yours.

n learned vectors join the image patches (VPT-shallow, arXiv 2203.12119, eq. 4 and 5), and images are classified by
the similarity of their feature to frozen class texts. Copy the file to trainers/, rename what you change, and run

    python train.py --trainer VisionPrompt --config-file configs/trainers/VPT/tiny.yaml --seed 1 \
        --dataset-config-file configs/datasets/digits.yaml DATASET.NUM_SHOTS 16

Attention pattern: [CLS, patches] and the prompts attend to each other; the text side is zero-shot CLIP's.
"""

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, encode_image, image_segments
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.prompted import FixedTextCLIP, PromptedCLIP


def extend_cfg(cfg: CfgNode) -> None:
    """Add the method's settings with their defaults. Only `cfg`, CfgNode, and literals may be used here."""
    cfg.TRAINER.VISIONPROMPT = CfgNode()
    cfg.TRAINER.VISIONPROMPT.N_CTX = 4  # n, the number of prompts
    cfg.TRAINER.VISIONPROMPT.PREC = "fp32"  # precision of the frozen towers: fp32, fp16, bf16, or amp


class PromptLearner(nn.Module):
    """Owns everything that is trained: `prompts` (n, vision width)."""

    def __init__(self, clip_model: CLIP, options: CfgNode):
        super().__init__()
        width = clip_model.visual.proj.shape[0]  # sizes come from the model
        self.prompts = nn.Parameter(0.02 * torch.randn(options.N_CTX, width))


class VisionPromptCLIP(FixedTextCLIP):
    """CLIP with frozen class texts (the base class encodes them once) and prompts next to the image patches."""

    def __init__(self, clip_model: CLIP, texts: list[list[str]], options: CfgNode):
        super().__init__(clip_model, texts)
        self.prompt_learner = PromptLearner(clip_model, options)

    def image_features(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) as unit-length features (B, D)."""
        segments = image_segments(self.clip, images, self.prompt_learner.prompts)
        return encode_image(self.clip, segments)


@TRAINER_REGISTRY.register()
class VisionPrompt(PromptTrainer):
    """Cross-entropy; the prompts alone are trained."""

    config_node = "VISIONPROMPT"

    def check_options(self, checks: Checks) -> None:
        checks.at_least("N_CTX", 1)  # bad settings are reported before anything is loaded

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return VisionPromptCLIP(clip_model, self.fixed_texts(classnames), self.options)
