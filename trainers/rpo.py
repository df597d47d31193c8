"""RPO: Lee et al., Read-only Prompt Optimization for Vision-Language Few-shot Learning, arXiv 2308.14960.

K pairs of prompts, text p^t_k and image p^v_k, attend to CLIP's hidden states layer by layer; a mask keeps every token
from attending to them, so that CLIP's internal representation does not shift (section 3.1, figure 4). Here no mask is
needed: the prompts are a segment that no segment attends to, and the words they attend to are in a KV cache.

    p^v_k, p^t_k start at the special token's embedding + noise             (section 3.2: CLS, EOS)
    s_k(x, y) = cos(v_k(x), t_k(y))                                         (similarity of the k-th pair)
    p(y | x)  = softmax_y( 1/K sum_k s_k(x, y) / tau )                      (section 3.3: average of the K pairs)

Attention pattern: K text prompts attend to the frozen words up to the end-of-text token; K image prompts attend to the
frozen [CLS, patches]; nothing attends to a prompt, not even the prompt itself. As in the released code, text prompts
get no position, and image prompts pass through `ln_pre`. The paper's ablations: INIT, NOISE, PROMPTS on one side, and
MASK off, which restores CLIP's attention: image tokens and prompts all attend to each other; text prompts, which come
last in a causal tower, attend to the tokens before them and to themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, BackboneConfig, CachedWords, KVCache, Segment, prefill_image
from dassl.config import Checks
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.features import load_image_caches
from trainers.prompted import FixedTextCLIP, PromptedCLIP

CHOICES = {
    "INIT": ("special_token", "random"),
    "NOISE": ("sphere", "gaussian"),
    "PROMPTS": ("both", "text", "image"),
}


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.RPO."""
    cfg.TRAINER.RPO = CfgNode()
    cfg.TRAINER.RPO.K = 24  # K, the number of prompt pairs
    cfg.TRAINER.RPO.INIT = "special_token"  # special_token; random: normal, standard deviation 0.02
    cfg.TRAINER.RPO.NOISE = "sphere"  # sphere: unit vectors (released code); gaussian: normal (the paper)
    cfg.TRAINER.RPO.SIGMA = 0.1  # factor of the noise on the special token
    cfg.TRAINER.RPO.MASK = True  # nothing attends to a prompt
    cfg.TRAINER.RPO.PROMPTS = "both"  # both, text, or image; the other side is zero-shot CLIP
    cfg.TRAINER.RPO.CTX_INIT = ""  # in released files; not used
    cfg.TRAINER.RPO.PREC = "fp32"  # fp32, fp16, bf16 or amp


def initial(special: Tensor, options: CfgNode) -> nn.Parameter:
    """Return initial prompts (K, width): a special token's embedding with noise (section 3.2), or random."""
    noise = torch.randn(options.K, len(special))
    if options.INIT == "random":
        return nn.Parameter(0.02 * noise)
    noise = F.normalize(noise, dim=-1) if options.NOISE == "sphere" else noise
    return nn.Parameter(special.float().cpu() + options.SIGMA * noise)


class PromptLearner(nn.Module):
    """K read-only prompts per side: `text_prompt` (K, text width) and `img_prompt` (K, vision width)."""

    def __init__(self, clip_model: CLIP, end_token: int, options: CfgNode):
        super().__init__()
        if options.PROMPTS != "image":
            self.text_prompt = initial(clip_model.token_embedding.weight[end_token], options)
        if options.PROMPTS != "text":
            self.img_prompt = initial(clip_model.visual.class_embedding, options)


class RPOCLIP(FixedTextCLIP):
    """CLIP with read-only prompts on both sides; a side without prompts is that of zero-shot CLIP, with K = 1."""

    def __init__(self, clip_model: CLIP, texts: list[str], options: CfgNode, memory_limit: float = 2.0):
        super().__init__(clip_model, texts)
        # The words attend to no prompt, so they run once, here, if their KV cache fits into memory_limit (GiB).
        self.words = CachedWords(clip_model, texts, memory_limit, is_used=options.PROMPTS != "image")
        self.prompt_learner = PromptLearner(clip_model, self.words.end_token, options)
        self.frozen_image_encoder = options.PROMPTS == "text"
        self.prompts = options.PROMPTS
        self.visible = () if options.MASK else ("prompts",)  # the prompts that segments attend to

    def class_features(self, classes: slice) -> Tensor:
        """Compute t_k(y) for each class y: (C, K, D)."""
        if self.prompts == "image":
            return super().class_features(classes)[:, None]
        prompts = self.prompt_learner.text_prompt[None].to(self.clip.dtype)  # one batch row for all classes
        segments = {"prompts": Segment(prompts, attends_to=("words", *self.visible))}
        x = self.clip.transformer(segments, cache=self.words.cache(self.clip, classes))["prompts"]
        return F.normalize(self.clip.project_text(x).float(), dim=-1)

    def image_memory(self, images: Tensor) -> Tensor:
        """Return the KV cache of images for `image_features`: (B, layers, 2, heads, 1 + patches, head width)."""
        return prefill_image(self.clip, images).stack("image")

    def image_features(self, images: Tensor) -> Tensor:
        """Compute v_k(x) for each image x: (B, K, D). images: (B, 3, H, W), or their `image_memory`."""
        if self.prompts == "text":
            return super().image_features(images)[:, None]
        tower = self.clip.visual
        prompts = tower.ln_pre(self.prompt_learner.img_prompt[None].to(self.clip.dtype))
        segments, cache = {"prompts": Segment(prompts, attends_to=("image", *self.visible))}, None
        if images.dim() > 4:
            cache = KVCache.from_stack("image", images)
        else:
            image = Segment(tower.embed(images), attends_to=("image", *self.visible), wanted=False)
            segments = {"image": image, **segments}
        return F.normalize(tower.project(tower.transformer(segments, cache)["prompts"]).float(), dim=-1)

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Average the cosines of the K pairs, times CLIP's scale: (B, K, D), (C, K, D) -> (B, C)."""
        k = max(image.shape[1], text.shape[1])
        image, text = (x.expand(-1, k, -1).flatten(1) for x in (image, text))
        return self.clip.logit_scale.exp() / k * image @ text.t()


@TRAINER_REGISTRY.register()
class RPO(PromptTrainer):
    """Read-only prompt optimization: cross-entropy of the averaged similarities; only the 2K prompts are trained."""

    model: RPOCLIP
    config_node = "RPO"
    static_step = True

    def check_options(self, checks: Checks) -> None:
        checks.at_least("K", 1)
        checks.at_least("SIGMA", 0)
        for key, choices in CHOICES.items():
            checks.one_of(key, choices)

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        self.check_room(checks, sizes, self.options.K)
        if self.options.PROMPTS != "text":
            _ = sizes.vision_layers  # raises a UserError for a ResNet

    def texts(self, classnames: list[str]) -> Iterator[tuple[str, str, int]]:
        texts = self.single_fixed_texts(classnames)
        yield from ((name, text, self.options.K) for name, text in zip(classnames, texts, strict=True))

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return RPOCLIP(clip_model, self.single_fixed_texts(classnames), self.options, self.cfg.MODEL.TEXT_MEMORY)

    def build_model(self) -> None:
        super().build_model()
        if self.options.MASK and self.options.PROMPTS != "text":  # the patches are frozen
            load_image_caches(self, self.model.image_memory)
