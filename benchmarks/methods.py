"""The two paths of each method on a CLIP of ViT-B/16's sizes with random weights.

The plain path does what the released code does in a step, and no more (tests/plain_clip.py): 77 text positions for
every class, and full masks. Class texts that the method trains are encoded in each step, and fixed ones once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import plain_clip  # noqa: E402
from reference import options, reference_clip, reference_images, reference_sizes  # noqa: E402, F401 (images: imported from here)

from benchmarks.floor import FLOORS, Step  # noqa: E402
from benchmarks.further import FURTHER, build_further, heads_of, least_layers  # noqa: E402
from clip import CLIP  # noqa: E402
from clip.tokenizer import encode  # noqa: E402
from dassl.engine.accelerate import GraphedStep, Outputs  # noqa: E402
from trainers import cocoop, coop, independent, ivlp, lp, maple, rpo, sep, vpt  # noqa: E402
from trainers.base import TOWER_DTYPES  # noqa: E402
from trainers.context import ContextCLIP  # noqa: E402
from trainers.prompted import FixedTextCLIP, PromptedCLIP  # noqa: E402
from trainers.texts import SHORTEST_TEXT  # noqa: E402

NOUNS = (
    "cat dog horse sheep airplane bicycle motorbike tram lighthouse bridge windmill castle temple pagoda stadium "
    "strawberry pizza omelette pancake lasagna guitar violin trumpet accordion laptop telephone camera umbrella "
    "sunflower daffodil orchid magnolia tiger leopard elephant kangaroo penguin flamingo dolphin lobster beagle "
    "greyhound samoyed bengal sphynx wheelchair helicopter submarine typewriter hourglass"
).split()
ADJECTIVES = "abandoned yellow wooden tiny striped old flying golden painted sleeping frozen broken giant".split()
# Each method's usual number of prompts.
PROMPTS = {"RPO": 24, "CoOp": 16, "CoCoOp": 4, "MaPLe": 2, "SEP": 6, "VPT": 8}
# Measured only in a test pass.
TESTED = {"ZeroshotCLIP": 0, "LP": 0, "IVLP": 2}
# How our step runs: eager, through torch.compile, as a CUDA graph, or both.
WAYS = ("fast", "compiled", "graph", "compiled graph")
MAPLE_DEPTH = 9  # of the released settings, if the towers have as many layers

Loss = Callable[[Tensor, Tensor], Tensor]


def most_prompts(method: str) -> int:
    """Return the number of prompts or context vectors that fit next to the words: no limit for VPT's image side."""
    if method == "VPT":
        return sys.maxsize
    context = reference_sizes(layers=1).context_length
    return (context - 1) // 2 if method == "SEP" else context - SHORTEST_TEXT  # SEP: as many tokens follow its prompt


@cache
def all_names() -> list[str]:
    names = NOUNS + [f"{a} {n}" for a in ADJECTIVES for n in NOUNS]
    return names + [f"{a} {b} {n}" for a in ADJECTIVES for b in ADJECTIVES for n in NOUNS]


def most_classes() -> int:
    return len(all_names())


def classnames(count: int) -> list[str]:
    """Return made-up names of one to a few tokens, as in the usual datasets."""
    return all_names()[:count]


@dataclass(frozen=True)
class Case:
    """What is measured: a method, its numbers, and how it runs."""

    method: str
    prompts: int
    classes: int
    batch: int
    layers: int = 12
    device: str = "cpu"
    prec: str = "fp32"
    text_block: int = 0
    how: str = "fast"


@dataclass
class Paths:
    """Both paths with the same learnable tensors.

    Attributes:
        model: the fast path.
        plain: the plain path, images (B, 3, H, W) -> logits (B, C); None for the methods in `FURTHER`.
        losses: (images, labels) -> the training loss, of the plain path and of ours in all `WAYS`.
        floor: the fewest floating-point operations of a training step; NaN for the methods in `TESTED`.
    """

    model: PromptedCLIP
    plain: Callable[[Tensor], Tensor] | None
    losses: dict[str, Loss]
    floor: float


def build(case: Case, clip_model: CLIP | None = None, names: list[str] | None = None) -> Paths:
    """Build both paths of a case, by default with ViT-B/16's sizes and made-up classes. Prompts are seeded."""
    torch.manual_seed(0)
    dtype = TOWER_DTYPES[case.prec]
    clip_model = frozen_clip(case.layers, case.device, dtype) if clip_model is None else clip_model
    names = classnames(case.classes) if names is None else names
    texts = [f"a photo of a {name}." for name in names]
    plain, losses = None, []
    if case.method in FURTHER:
        model, losses, shape = build_further(case, clip_model, names, texts)
    else:
        model, plain, shape = BUILDERS[case.method](case, clip_model, names, texts, partial(Tensor.to, dtype=dtype))
    model = model.to(case.device)
    model.text_block = case.text_block
    step = Step(
        clip_model.config,
        names=[len(encode(f"{name}.")) + 1 for name in names],
        texts=[len(encode(text)) + 2 for text in texts],
        batch=case.batch,
        prompts=case.prompts,
        **shape,
    )
    losses = losses or [cross_entropy(model), cross_entropy(plain)]
    if case.method == "SEP":
        losses = [sep_loss(case, model), sep_loss(case, model, plain)]
        plain = partial(sep_logits, model, plain)
    fast, plain_loss = losses
    if case.method in TESTED:
        return Paths(model, plain, {"plain": plain_loss, "fast": fast}, float("nan"))
    ways = {how: another_way(fast, how, model.prompt_learner) for how in WAYS}
    return Paths(model, plain, {"plain": plain_loss, **ways}, 2 * FLOORS[case.method](step))


@cache
def frozen_clip(layers: int, device: str, dtype: torch.dtype) -> CLIP:
    """Return a CLIP of ViT-B/16's sizes with random weights, drawn once per process."""
    return reference_clip(layers).to(device, dtype)


def another_way(loss: Loss, how: str, learner: torch.nn.Module) -> Loss:
    """Return a loss in one of the `WAYS`. The first call compiles or captures it."""

    def step(images: Tensor, labels: Tensor) -> Outputs:
        value = loss(images, labels)
        return value, value.detach(), {}

    if "compiled" in how:
        step = torch.compile(step, dynamic=False)
    if "graph" in how:
        step = GraphedStep(step, learner)
    return lambda images, labels: step(images, labels)[0]


def cross_entropy(logits: Callable[[Tensor], Tensor]) -> Loss:
    return lambda images, labels: F.cross_entropy(logits(images).float(), labels)


# For each method: the fast path, the plain path, and the method's own arguments of `Step`. `half` casts to the towers'
# precision, as the fast path does itself.


def build_rpo(case, clip_model, names, texts, half):
    fast, state = rpo.RPOCLIP(clip_model, texts, options(rpo, K=case.prompts)), clip_model.state_dict()
    learner = fast.prompt_learner

    def plain(x):
        prompts = half(learner.text_prompt), half(learner.img_prompt)
        return plain_clip.rpo(state, half(x), texts, *prompts, heads_of(clip_model))

    return fast, plain, {}


def build_coop(case, clip_model, names, texts, half):
    fast, state = ContextCLIP(clip_model, names, options(coop, N_CTX=case.prompts)), clip_model.state_dict()
    learner = fast.prompt_learner
    return fast, lambda x: plain_clip.coop(state, half(x), names, half(learner.ctx), "end", heads_of(clip_model)), {}


def build_cocoop(case, clip_model, names, texts, half):
    fast, state = cocoop.CoCoOpCLIP(clip_model, names, options(cocoop, N_CTX=case.prompts)), clip_model.state_dict()
    learner = fast.prompt_learner

    def meta_net(feature):
        return half(learner.meta_net(feature.float()))

    return (
        fast,
        lambda x: plain_clip.cocoop(state, half(x), names, half(learner.ctx), meta_net, heads_of(clip_model)),
        {},
    )


def build_maple(case, clip_model, names, texts, half):
    depth = min(MAPLE_DEPTH, least_layers(clip_model))
    settings = options(maple, N_CTX=case.prompts, CTX_INIT="", PROMPT_DEPTH=depth)
    fast, state = maple.MaPLeCLIP(clip_model, names, settings), clip_model.state_dict()
    learner = fast.prompt_learner

    def plain(x):
        deep, image = [half(p) for p in learner.compound_prompts_text], [half(p) for p in learner.image_prompts()]
        return plain_clip.maple(state, half(x), names, half(learner.ctx), deep, image, heads_of(clip_model))

    return fast, plain, {"depth": depth, "image_prompts": case.prompts}


def build_vpt(case, clip_model, names, texts, half):
    settings = options(vpt, N_CTX_VISION=case.prompts, PROMPT_DEPTH_VISION=clip_model.config.vision_layers)
    fast, state = vpt.VPTCLIP(clip_model, names, texts, settings), clip_model.state_dict()
    learner = fast.prompt_learner

    text = plain_clip.encode_text(state, texts, heads_of(clip_model))

    def plain(x):
        prompts = [half(learner.get_parameter(name)) for name in learner.names]
        return plain_clip.vpt(state, half(x), text, prompts, heads_of(clip_model))

    return fast, plain, {"depth": clip_model.config.vision_layers, "image_prompts": case.prompts}


def build_ivlp(case, clip_model, names, texts, half):
    depth = min(MAPLE_DEPTH, least_layers(clip_model))
    vectors = {"N_CTX_TEXT": case.prompts, "N_CTX_VISION": case.prompts, "CTX_INIT": ""}
    settings = options(ivlp, PROMPT_DEPTH_TEXT=depth, PROMPT_DEPTH_VISION=depth, **vectors)
    fast, state = independent.IndependentCLIP(clip_model, names, texts, settings), clip_model.state_dict()
    learner = fast.prompt_learner

    def plain(x):
        ctx, *deep = [half(p) for p in learner.prompts(learner.text)]
        image = [half(p) for p in learner.prompts(learner.image)]
        return plain_clip.maple(state, half(x), names, ctx, deep, image, heads_of(clip_model))

    return fast, plain, {}


def build_lp(case, clip_model, names, texts, half):
    fast, state, heads = lp.LPCLIP(clip_model, texts), clip_model.state_dict(), heads_of(clip_model)
    text = plain_clip.encode_text(state, texts, heads)

    def plain(x):
        image = fast.prompt_learner(plain_clip.encode_image(state, half(x), heads).float())
        return plain_clip.similarity(state, half(F.normalize(image, dim=-1)), text)

    return fast, plain, {}


def build_zero_shot(case, clip_model, names, texts, half):
    fast, state, heads = FixedTextCLIP(clip_model, texts), clip_model.state_dict(), heads_of(clip_model)
    text = plain_clip.encode_text(state, texts, heads)
    return fast, lambda x: plain_clip.similarity(state, plain_clip.encode_image(state, half(x), heads), text), {}


def build_sep(case, clip_model, names, texts, half):
    """Build SEP. Its plain path gives features, not logits: frozen text, text, frozen image, image."""
    settings = options(sep, N_CTX=case.prompts, LAYERS=list(range(1, least_layers(clip_model))))
    fast, state = sep.SEPCLIP(clip_model, names, texts, settings), clip_model.state_dict()
    torch.nn.init.normal_(fast.prompt_learner.VPT_fc.weight)
    learner, chosen = fast.prompt_learner, list(settings.LAYERS)
    fused = {"fused": len(chosen), "image_prompts": len(learner.ctx_visual)}
    heads = heads_of(clip_model)
    text0 = plain_clip.encode_text(state, texts, heads)
    return fast, lambda x: (text0, *plain_clip.sep(state, half(x), names, text0, learner, chosen, False, heads)), fused


def sep_loss(case: Case, model, plain=None) -> Loss:
    """Return SEP's loss, of the fast path or of the plain path's features."""
    settings = options(sep, N_CTX=case.prompts, LAYERS=model.layers)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        used = model
        if plain is not None:
            t0, t, i0, i = (features.float() for features in plain(images))
            used = SimpleNamespace(
                both_image_features=lambda _: (i0, i),
                text_features=lambda: t,
                features=t0,
                logits=model.logits,
                prompt_learner=model.prompt_learner,
            )
        trainer = SimpleNamespace(model=used, options=settings, cross_entropy=F.cross_entropy)
        return sep.SEP.loss(trainer, images, labels)[0]

    return loss


def sep_logits(model, plain, images: Tensor) -> Tensor:
    _, text, _, image = plain(images)
    return model.logits(image, text)


BUILDERS = {
    "RPO": build_rpo,
    "CoOp": build_coop,
    "CoCoOp": build_cocoop,
    "MaPLe": build_maple,
    "SEP": build_sep,
    "VPT": build_vpt,
    "IVLP": build_ivlp,
    "LP": build_lp,
    "ZeroshotCLIP": build_zero_shot,
}
