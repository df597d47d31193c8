"""TCP: Yao et al., TCP: Textual-based Class-aware Prompt Tuning for Visual-Language Model, arXiv 2311.18231.

CoOp, whose M context tokens are replaced before one text layer by tokens that a meta-net makes of each class's frozen
text feature t_0 (section 3.2), and whose class features t are pulled toward t_0:

    T_c = meta-net(t_0)        D -> D/4 -> M x text width, QuickGELU between    (eq. 4)
    L = L_ce + w (1 - mean_c cos(t_c, t_0,c))                                   (eq. 7)

The learned context takes the place of the words before the class name in the dataset's template.

Attention pattern: as CoOp; from the layer on, the words of a class attend to the class's tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from yacs.config import CfgNode

from clip import CLIP, BackboneConfig, ClassWords, Segment, context_vectors, encode_words
from clip.towers import QuickGELU
from dassl.config import Checks
from dassl.data import prompt_template
from dassl.engine import TRAINER_REGISTRY
from trainers.context import ContextTrainer
from trainers.prompted import PromptedCLIP, distance, frozen_text_features

REDUCTION = 4  # of the meta-net's hidden layer


def extend_cfg(cfg: CfgNode) -> None:
    """Add TRAINER.TCP."""
    cfg.TRAINER.TCP = CfgNode()
    cfg.TRAINER.TCP.N_CTX = 4  # M, the number of context vectors
    cfg.TRAINER.TCP.CTX_INIT = "a photo of a"  # words to start from; their number replaces N_CTX
    cfg.TRAINER.TCP.INJECT_LAYER = 8  # the text layer, counted from 0, before which the context is replaced
    cfg.TRAINER.TCP.W = 8.0  # w, the weight of the pull toward frozen CLIP
    cfg.TRAINER.TCP.PREC = "fp32"  # fp32, fp16, bf16 or amp


class PromptLearner(nn.Module):
    """The context `ctx` (M, text width) and the `meta_net` (D -> M x text width)."""

    def __init__(self, clip_model: CLIP, options: CfgNode):
        super().__init__()
        self.ctx = context_vectors(clip_model, options.CTX_INIT, (options.N_CTX,))
        embed_dim = clip_model.text_projection.shape[1]
        self.meta_net = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(embed_dim, embed_dim // REDUCTION),
                relu=QuickGELU(),
                linear2=nn.Linear(embed_dim // REDUCTION, self.ctx.numel()),
            )
        )

    def forward(self, frozen: Tensor) -> Tensor:
        """Make the tokens of classes from their frozen features: (C, D) -> (C, M, text width)."""
        return self.meta_net(frozen).unflatten(-1, self.ctx.shape)


class TCPCLIP(PromptedCLIP):
    """CLIP with a learned context that class-aware tokens replace.

    Args:
        texts: of frozen CLIP's class features.
        ending: what follows each class name.
    """

    frozen_image_encoder = True
    frozen: Tensor  # (C, D)

    def __init__(
        self,
        clip_model: CLIP,
        classnames: list[str],
        texts: Sequence[str | Sequence[str]],
        ending: str,
        options: CfgNode,
    ):
        super().__init__(clip_model, len(classnames))
        self.prompt_learner = PromptLearner(clip_model, options)
        self.words = ClassWords(clip_model, classnames, len(self.prompt_learner.ctx), ending=ending)
        self.inject_layer = options.INJECT_LAYER
        self.register_buffer("frozen", frozen_text_features(clip_model, texts), persistent=False)

    def class_features(self, classes: slice) -> Tensor:
        rows = self.words.packed(classes).class_of_row
        tokens = self.prompt_learner(self.frozen[classes][rows]).to(self.clip.dtype)

        def replace_context(depth: int, segments: dict[str, Segment]) -> None:
            if depth == self.inject_layer:
                segments["ctx"].tokens = tokens

        ctx = self.prompt_learner.ctx
        return encode_words(self.clip, self.words, ctx, before_layer=replace_context, classes=classes)


@TRAINER_REGISTRY.register()
class TCP(ContextTrainer):
    """Class-aware prompt tuning: cross-entropy and the pull; the context and the meta-net are trained."""

    model: TCPCLIP
    config_node = "TCP"
    static_step = True
    has_fixed_texts = True

    def check_options(self, checks: Checks) -> None:
        super().check_options(checks)
        checks.at_least("INJECT_LAYER", 1)
        checks.at_least("W", 0)

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        super().check_sizes(checks, sizes)
        checks.at_most("INJECT_LAYER", sizes.text_layers - 1, "the last layer of the backbone's text tower")

    def ending(self) -> str:
        """Return what follows the class name in the template."""
        return prompt_template(self.template()).partition("{}")[2]

    def fixed_words(self, classnames: list[str]) -> list[str]:
        return [name + self.ending() for name in classnames]

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return TCPCLIP(clip_model, classnames, self.fixed_texts(classnames), self.ending(), self.options)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        text = self.model.text_features()
        logits = self.model.logits(self.model.image_features(images), text)
        ce, pull = self.cross_entropy(logits, labels), self.options.W * distance(text, self.model.frozen)
        self.loss_parts = {"ce": ce.detach(), "pull": pull.detach()}
        return ce + pull, logits
