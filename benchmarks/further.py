"""Both paths of a training step of the further methods, whose loss is more than a cross-entropy.

Each builder returns our model, what stands for it on the plain path, and the method's own arguments of `Step`. The loss
of both is that of the trainer; the plain path gives it features as the released code computes them. Only float32.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import plain_clip
import torch
import torch.nn.functional as F
from reference import options
from torch import Tensor

from clip import CLIP, context_vectors
from trainers import cliplora, dept, kgcoop, lasp, mma, mmrl, plotpp, prograd, promptsrc, tcp
from trainers.base import PromptTrainer
from trainers.context import GuidedContextCLIP
from trainers.independent import IndependentCLIP

if TYPE_CHECKING:
    from benchmarks.methods import Case

# Number of context vectors, prompts, or tokens as released; for MMA the adapters' width, for CLIP-LoRA the rank.
FURTHER = {
    **{"KgCoOp": 4, "ProGrad": 16, "LASP": 4, "DePT": 16, "TCP": 4},
    **{"PromptSRC": 4, "PLOTPP": 4, "MMRL": 5, "MMA": 32, "CLIPLoRA": 2},
}
DEPTH = 9  # of PromptSRC's prompts, if the towers have as many layers
UPPER = 8  # layers with MMA's adapters
INJECTED = 8  # TCP's layer
JOINED = 7  # layers with MMRL's tokens
Built = tuple[Any, SimpleNamespace, dict[str, int]]


def heads_of(clip_model: CLIP) -> tuple[int, int]:
    """Return the number of heads of the image tower and of the text tower."""
    return clip_model.config.vision_heads, clip_model.config.text_heads


def least_layers(clip_model: CLIP) -> int:
    return min(clip_model.config.vision_layers, clip_model.config.text_layers)


def losses(trainer: type[PromptTrainer], settings, model, plain: SimpleNamespace) -> list:
    """Return the loss of both paths, (images, labels) -> the training loss; `plain` takes what it lacks from the model.

    What `plain` computes itself replaces the model's functions of these names.
    """

    def loss_of(used):
        holder = SimpleNamespace(model=used, options=settings, cross_entropy=F.cross_entropy, fixed_text=None)
        return lambda images, labels: trainer.loss(holder, images, labels)[0]

    return [loss_of(model), loss_of(Plain(model, plain))]


class Plain:
    """A model whose features are those of the plain path."""

    def __init__(self, model, plain: SimpleNamespace):
        self._model, self._plain = model, plain

    def __getattr__(self, name: str):
        return getattr(self._plain if hasattr(self._plain, name) else self._model, name)

    def __call__(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        return self.logits(self.image_features(images), self.text_features())


def frozen_image(clip_model: CLIP, normalize: bool = True):
    """Return the plain path of frozen CLIP's image features."""
    state, heads = clip_model.state_dict(), heads_of(clip_model)
    return lambda images: plain_clip.encode_image(state, images, heads, normalize)


def with_context(clip_model: CLIP, names, learner, deep=lambda: (), normalize: bool = True):
    """Return the plain path of class features with a learned context."""
    state, heads = clip_model.state_dict(), heads_of(clip_model)
    return lambda *_: plain_clip.encode_with_context(state, names, learner.ctx, heads, deep=deep(), normalize=normalize)


def guided(clip_model: CLIP, names, texts, settings) -> Built:
    model = GuidedContextCLIP(clip_model, names, texts, settings, context_vectors(clip_model, "", (settings.N_CTX,)))
    features = with_context(clip_model, names, model.prompt_learner)
    return model, SimpleNamespace(image_features=frozen_image(clip_model), text_features=features), {}


def build_kgcoop(case, clip_model, names, texts, settings) -> Built:
    return guided(clip_model, names, texts, settings)


def build_prograd(case, clip_model, names, texts, settings) -> Built:
    model, plain, shape = guided(clip_model, names, texts, settings)
    once = plain.image_features

    def twice(images: Tensor) -> Tensor:  # once for zero-shot CLIP's logits
        with torch.no_grad():
            once(images)
        return once(images)

    return model, SimpleNamespace(image_features=twice, text_features=plain.text_features), {**shape, "backward": 2}


def build_tcp(case, clip_model, names, texts, settings) -> Built:
    model = tcp.TCPCLIP(clip_model, names, texts, ".", settings)
    features = with_context(
        clip_model, names, model.prompt_learner, lambda: {settings.INJECT_LAYER: model.prompt_learner(model.frozen)}
    )
    plain = SimpleNamespace(image_features=frozen_image(clip_model), text_features=features)
    return model, plain, {"first": settings.INJECT_LAYER}


def build_dept(case, clip_model, names, texts, settings) -> Built:
    model = dept.DePTCLIP(clip_model, names, True, settings)
    plain = SimpleNamespace(
        tower_features=frozen_image(clip_model, normalize=False),
        projected_features=with_context(clip_model, names, model.prompt_learner, normalize=False),
        in_blocks=lambda compute, size: compute(),
    )
    return model, plain, {}


def build_lasp(case, clip_model, names, texts, settings) -> Built:
    clip_model = copy.deepcopy(clip_model)  # its LayerNorms are trained
    own = [[text.replace("{}", name) for text in lasp.RELEASED_TEXTS] for name in names]
    model = lasp.LASPCLIP(clip_model, names, own, len(names), settings)
    state, heads = clip_model.state_dict() | dict(clip_model.visual.named_parameters("visual")), heads_of(clip_model)
    projected = with_context(clip_model, names, model.prompt_learner, normalize=False)
    plain = SimpleNamespace(
        image_features=lambda images: plain_clip.encode_image(state, images, heads),
        text_features=lambda: F.normalize(projected() + model.prompt_learner.w, dim=-1),
    )
    return model, plain, {"guides": len(lasp.RELEASED_TEXTS)}


def build_promptsrc(case, clip_model, names, texts, settings) -> Built:
    model = IndependentCLIP(clip_model, names, texts, settings)
    learner, state, heads = model.prompt_learner, clip_model.state_dict(), heads_of(clip_model)

    def image_features(images: Tensor) -> Tensor:
        first, *deep = learner.prompts(learner.image)
        return plain_clip.encode_image_with(state, images, first, deep, heads)

    plain = SimpleNamespace(
        image_features=image_features,
        tower_features=frozen_image(clip_model, normalize=False),
        text_features=with_context(clip_model, names, learner, lambda: learner.prompts(learner.text)[1:]),
    )
    return model, plain, {"depth": settings.PROMPT_DEPTH_TEXT, "image_prompts": case.prompts}


def build_plotpp(case, clip_model, names, texts, settings) -> Built:
    model = plotpp.PLOTPPCLIP(clip_model, names, settings)
    learner, state, heads = model.prompt_learner, clip_model.state_dict(), heads_of(clip_model)

    def text_features() -> Tensor:
        ctx = learner.ctx.repeat_interleave(len(names), dim=0)
        all_names = names * len(learner.ctx)
        features = plain_clip.encode_with_context(state, all_names, ctx, heads, normalize=False)
        return features.unflatten(0, (-1, len(names))).transpose(0, 1)

    def image_features(images: Tensor) -> Tensor:
        prompts = learner.ctx_vision.repeat_interleave(len(images), dim=0)
        images = images.repeat(len(learner.ctx_vision), 1, 1, 1)
        features = plain_clip.encode_image_with(state, images, prompts, (), heads, normalize=False)
        return features.unflatten(0, (len(learner.ctx_vision), -1)).transpose(0, 1)

    shape = {"contexts": len(settings.CTX_INIT), "runs": settings.M, "image_prompts": settings.N_CTX_V}
    return model, SimpleNamespace(image_features=image_features, text_features=text_features), shape


def build_mmrl(case, clip_model, names, texts, settings) -> Built:
    model = mmrl.MMRLCLIP(clip_model, texts, settings)
    learner, state, heads = model.prompt_learner, clip_model.state_dict(), heads_of(clip_model)
    proj = learner.get_parameter("image_encoder.proj_rep")

    def features(images: Tensor, with_frozen: bool) -> list[Tensor]:
        f, own = plain_clip.mmrl_image(state, images, learner.tokens("v"), model.first_layer, heads)
        with torch.no_grad():
            f_0 = plain_clip.encode_image(state, images, heads)
        return [f, F.normalize(own.mean(dim=1) @ proj, dim=-1), f_0]

    text = lambda: plain_clip.mmrl_text(state, texts, learner.tokens("t"), model.first_layer, heads)  # noqa: E731
    shape = {"first": model.first_layer, "image_prompts": case.prompts, "table": settings.REP_DIM}
    return model, SimpleNamespace(features=features, text_features=text), shape


def build_mma(case, clip_model, names, texts, settings) -> Built:
    model = mma.MMACLIP(clip_model, texts, settings)
    learner, state, heads = model.prompt_learner, clip_model.state_dict(), heads_of(clip_model)

    def adapted(adapters, tower):
        of_layer = learner.by_depth(adapters)

        def mlp_update(i, entering, update):
            return of_layer[i].mlp_update(tower.blocks[i], entering, update) if i in of_layer else update

        return mlp_update

    visual = adapted(learner.visual_adapter, clip_model.visual.transformer)
    text = adapted(learner.text_adapter, clip_model.transformer)
    plain = SimpleNamespace(
        image_features=lambda images: plain_clip.encode_image(state, images, heads, mlp_update=visual),
        text_features=lambda: plain_clip.encode_text(state, texts, heads, mlp_update=text),
    )
    return model, plain, {"first": settings.ADAPTER_START}


def build_cliplora(case, clip_model, names, texts, settings) -> Built:
    model = cliplora.CLIPLoRACLIP(clip_model, texts, settings)
    learner, state, heads = model.prompt_learner, clip_model.state_dict(), heads_of(clip_model)
    for name, p in learner.named_parameters():
        if name.endswith("w_lora_B"):  # else the updates are zero
            torch.nn.init.normal_(p, std=0.02)

    def updates(prefix: str, name: str) -> tuple[Tensor, Tensor]:
        depth = int(prefix.split(".")[-3])
        one = getattr(learner.adapters("vision" if prefix.startswith("visual.") else "text")[depth], f"{name}_proj")
        return one.w_lora_A, one.w_lora_B

    attend = plain_clip.low_rank_attention(updates, settings.ALPHA / settings.R**0.5)
    plain = SimpleNamespace(
        image_features=lambda images: plain_clip.encode_image(state, images, heads, attend=attend),
        text_features=lambda: plain_clip.encode_text(state, texts, heads, attend=attend),
    )
    return model, plain, {"first": 1}


def settings_of(case: Case, layers: int) -> dict[str, dict[str, object]]:
    """Return the settings of each method that are not its defaults, for towers of that many layers."""
    n, depth = case.prompts, min(DEPTH, layers)
    return {
        "KgCoOp": {"N_CTX": n},
        "ProGrad": {"N_CTX": n},
        "LASP": {"N_CTX": n, "CTX_INIT": "", "NOISE": 0.0},
        "DePT": {"N_CTX": n},
        "TCP": {"N_CTX": n, "CTX_INIT": "", "INJECT_LAYER": max(1, min(INJECTED, layers - 1))},
        "PromptSRC": {
            **{"N_CTX_TEXT": n, "N_CTX_VISION": n, "CTX_INIT": ""},
            **{"PROMPT_DEPTH_TEXT": depth, "PROMPT_DEPTH_VISION": depth},
        },
        "PLOTPP": {"M": n},
        "MMRL": {"N_REP_TOKENS": n, "REP_LAYERS": list(range(max(1, layers - JOINED + 1), layers + 1))},
        "MMA": {"ADAPTER_DIM": n, "ADAPTER_START": max(1, layers - UPPER + 1), "ADAPTER_END": layers},
        "CLIPLoRA": {"R": n, "DROPOUT": 0.0},
    }[case.method]


MODULES = (kgcoop, prograd, lasp, dept, tcp, promptsrc, plotpp, mmrl, mma, cliplora)
BUILDERS = {
    **{"KgCoOp": build_kgcoop, "ProGrad": build_prograd, "LASP": build_lasp, "DePT": build_dept, "TCP": build_tcp},
    **{"PromptSRC": build_promptsrc, "PLOTPP": build_plotpp, "MMRL": build_mmrl, "MMA": build_mma},
    "CLIPLoRA": build_cliplora,
}


def build_further(case: Case, clip_model: CLIP, names: list[str], texts: list[str]):
    """Return our model, the losses of our path and of the plain path, and the method's own arguments of `Step`."""
    (module,) = (each for each in MODULES if hasattr(each, case.method))
    settings = options(module, **settings_of(case, least_layers(clip_model)))
    model, plain, shape = BUILDERS[case.method](case, clip_model, names, texts, settings)
    return model, losses(getattr(module, case.method), settings, model, plain), shape
