"""MMA: Yang et al., Multi-Modal Adapter for Vision-Language Models, CVPR 2024.

In layers k to L of both towers, an adapter runs next to the MLP. Its middle map is shared by the towers (section 3.2):

    x <- x + attention(ln_1(x)),  x <- x + mlp(ln_2(x)) + alpha A_j(ln_1(x_in))    (eq. 5, 6)
    A_j(z) = up_j(shared_j(down_j(z)))          down, shared: a linear map and ReLU; up: a linear map    (eq. 7)

x_in is the layer's input. The released code rescales gradients, which the paper does not mention: that of A_j is not
multiplied by alpha on its way in, but on its way out to the layer's input. So the adapters learn at a rate that does
not depend on alpha, and the input gets the exact gradient. The texts are fixed, and the loss is cross-entropy.

Attention pattern: zero-shot CLIP's. The words that all texts begin with run once for all classes.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from yacs.config import CfgNode

from clip import (
    CLIP,
    BackboneConfig,
    FixedWords,
    LayerAdapter,
    encode_fixed_words,
    encode_image,
    plain_image_segments,
)
from clip.towers import ResidualAttentionBlock
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.prompted import PromptedCLIP


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.MMA."""
    cfg.TRAINER.MMA = CfgNode()
    cfg.TRAINER.MMA.TEXT_CTX_INIT = "a photo of a"  # the fixed words before each class name
    cfg.TRAINER.MMA.ADAPTER_START = 5  # k, the first layer with adapters, counted from 1
    cfg.TRAINER.MMA.ADAPTER_END = 12  # the last one
    cfg.TRAINER.MMA.ADAPTER_DIM = 32  # the width of the shared map
    cfg.TRAINER.MMA.ADAPTER_SCALE = 0.001  # alpha
    cfg.TRAINER.MMA.PREC = "fp32"  # fp32, fp16, bf16 or amp


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x, whose gradient is multiplied by a factor."""
    frozen = x.detach()
    return frozen + factor * (x - frozen)


class MultiModalAdapter(LayerAdapter):
    """The maps `down` and `up` of one layer of one tower; the map between them is shared by the towers."""

    def __init__(self, width: int, dim: int, shared: nn.Module, scale: float):
        super().__init__()
        self.down, self.up = nn.Sequential(nn.Linear(width, dim), nn.ReLU()), nn.Linear(dim, width)
        self.shared, self.scale = (shared,), scale  # in a tuple, so that it is registered only once, by the learner

    def mlp_update(self, block: ResidualAttentionBlock, tokens: Tensor, update: Tensor) -> Tensor:
        x = scale_gradient(block.ln_1(tokens), self.scale)
        adapted = self.up(self.shared[0](self.down(x.to(self.up.weight))))
        return update + scale_gradient(self.scale * adapted, 1 / self.scale).to(update)


class AdapterLearner(nn.Module):
    """The adapters of both towers by layer, counted from 1: `text_adapter`, `visual_adapter`, `shared_adapter`."""

    ignored_keys = ("token_embedding", "tokenized_prompts")  # of the class texts, in released files

    def __init__(self, clip_model: CLIP, options: CfgNode):
        super().__init__()
        dim, scale = options.ADAPTER_DIM, options.ADAPTER_SCALE
        layers = [str(i) for i in range(options.ADAPTER_START, options.ADAPTER_END + 1)]
        widths = clip_model.text_projection.shape[0], clip_model.visual.proj.shape[0]
        shared = {i: nn.Sequential(nn.Linear(dim, dim), nn.ReLU()) for i in layers}
        self.text_adapter, self.visual_adapter = (
            nn.ModuleDict({i: MultiModalAdapter(width, dim, shared[i], scale) for i in layers}) for width in widths
        )
        self.shared_adapter = nn.ModuleDict(shared)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                nn.init.zeros_(module.bias)

    @staticmethod
    def by_depth(adapters: nn.ModuleDict) -> dict[int, MultiModalAdapter]:
        """Return a tower's adapters by layer, counted from 0."""
        return {int(i) - 1: cast(MultiModalAdapter, adapter) for i, adapter in adapters.items()}


class MMACLIP(PromptedCLIP):
    """CLIP with coupled adapters in both towers."""

    def __init__(self, clip_model: CLIP, texts: list[str], options: CfgNode):
        super().__init__(clip_model, len(texts))
        self.prompt_learner = AdapterLearner(clip_model, options)
        self.words = FixedWords(clip_model, texts, below=options.ADAPTER_START - 1)

    def class_features(self, classes: slice) -> Tensor:
        learner = self.prompt_learner
        return encode_fixed_words(self.clip, self.words, learner.by_depth(learner.text_adapter), classes=classes)

    def image_features(self, images: Tensor) -> Tensor:
        learner, segments = self.prompt_learner, plain_image_segments(self.clip, images)
        return encode_image(self.clip, segments, adapters=learner.by_depth(learner.visual_adapter))


@TRAINER_REGISTRY.register()
class MMA(PromptTrainer):
    """Multi-modal adapter: cross-entropy; the adapters are trained."""

    config_node = "MMA"
    static_step = True
    checkpoint_name = "adapter_learner"
    has_fixed_texts = False

    def check_options(self, checks: Checks) -> None:
        checks.at_least(("ADAPTER_START", "ADAPTER_DIM"), 1)
        checks.at_least("ADAPTER_END", max(1, self.options.ADAPTER_START))
        checks.above("ADAPTER_SCALE", 0)

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        layers = (sizes.text_layers, sizes.vision_layers)
        checks.at_most("ADAPTER_END", min(layers), f"the backbone's towers have {layers[0]} and {layers[1]} layers")

    def class_texts(self, classnames: list[str]) -> list[str]:
        return [f"{self.options.TEXT_CTX_INIT} {name}." for name in classnames]

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return MMACLIP(clip_model, self.class_texts(classnames), self.options)
