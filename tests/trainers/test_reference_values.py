"""The fast path and the plain path compute what the authors' released code computes."""

from types import SimpleNamespace

import plain_clip
import pytest
import torch
import torch.nn.functional as F
from reference import CASES, HEADS, options, reference_clip, reference_images, set_prompts

from trainers import cocoop, coop, maple, rpo, sep, vpt
from trainers.context import ContextCLIP

METHODS = [case["case"]["method"] for case in CASES]
# The plain path takes most of the time; it and a method's further cases are slow.
RUNS = [
    pytest.param(
        case,
        path,
        id=f"{method}-{number}-{path}",
        marks=[pytest.mark.slow] if path == "plain" or method in METHODS[:number] else [],
    )
    for number, (case, method) in enumerate(zip(CASES, METHODS, strict=True))
    for path in ("fast", "plain")
]
GPU = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(scope="module", params=["cpu", GPU])
def clip_model(request):
    torch.backends.cudnn.allow_tf32 = False  # as in train.py
    return reference_clip(layers=3).to(request.param)


def cross_entropy(forward):
    """Return (forward, loss) of a method that trains by cross-entropy only."""
    return forward, lambda images, labels: F.cross_entropy(forward(images), labels)


def build(case, clip_model):
    """Return the model of a reference case, and the functions (logits, loss) of the fast and the plain path."""
    names, state = case["classnames"], clip_model.state_dict()
    texts = [f"a photo of a {name}." for name in names]
    if case["method"] == "SEP":
        return build_sep(case, clip_model, texts)
    if case["method"] == "RPO":
        model = rpo.RPOCLIP(clip_model, texts, options(rpo, K=case["K"]))
        learner = model.prompt_learner

        def plain(x):
            return plain_clip.rpo(state, x, texts, learner.text_prompt, learner.img_prompt, HEADS)
    elif case["method"] == "VPT":
        depth = min(case["depth"], case["layers"])
        settings = options(vpt, N_CTX_VISION=case["n_ctx"], PROMPT_DEPTH_VISION=depth)
        model = vpt.VPTCLIP(clip_model, names, texts, settings)
        prompts = [model.prompt_learner.get_parameter(name) for name in model.prompt_learner.names]

        def plain(x):
            return plain_clip.vpt(state, x, plain_clip.encode_text(state, texts, HEADS), prompts, HEADS)
    elif case["method"] == "MaPLe":
        settings = options(maple, N_CTX=case["n_ctx"], CTX_INIT=case["ctx_init"], PROMPT_DEPTH=case["depth"])
        model = maple.MaPLeCLIP(clip_model, names, settings)
        learner = model.prompt_learner
        fixed = " ".join(case["ctx_init"].split()[case["n_ctx"] :])  # the fixed words

        def plain(x):
            deep, image = list(learner.compound_prompts_text), learner.image_prompts()
            return plain_clip.maple(state, x, [f"{fixed} {name}" for name in names], learner.ctx, deep, image, HEADS)
    elif case["method"] == "CoCoOp":
        settings = options(cocoop, N_CTX=case["n_ctx"], CTX_INIT=case["ctx_init"])
        model = cocoop.CoCoOpCLIP(clip_model, names, settings)
        learner = model.prompt_learner

        def plain(x):
            return plain_clip.cocoop(state, x, names, learner.ctx, learner.meta_net, HEADS)
    else:
        settings = {"N_CTX": case["n_ctx"], "CTX_INIT": case.get("ctx_init", ""), "CSC": case.get("csc", False)}
        position = case.get("position", "end")
        model = ContextCLIP(clip_model, names, options(coop, CLASS_TOKEN_POSITION=position, **settings))
        learner = model.prompt_learner

        def plain(x):
            return plain_clip.coop(state, x, names, learner.ctx, position, HEADS)

    return model, {"fast": cross_entropy(model), "plain": cross_entropy(plain)}


def build_sep(case, clip_model, texts):
    names, state, layers = case["classnames"], clip_model.state_dict(), list(range(1, case["layers"]))
    settings = options(sep, N_CTX=case["n_ctx"], N_CTX_V=case["n_ctx_v"], LAYERS=layers, SELECT="batch")
    model = sep.SEPCLIP(clip_model, names, texts, settings)
    trainer = SimpleNamespace(model=model, options=settings, cross_entropy=F.cross_entropy)

    def features(images):
        text0 = plain_clip.encode_text(state, texts, HEADS)
        return text0, *plain_clip.sep(state, images, names, text0, model.prompt_learner, layers, True, HEADS)

    def plain(images):
        _, text, _, image = features(images)
        return plain_clip.similarity(state, image, text)

    def plain_loss(images, labels):
        text0, text, image0, image = features(images)
        loss = F.cross_entropy(plain_clip.similarity(state, image, text), labels)
        loss = loss + 8 * (1 - F.cosine_similarity(text, text0).mean())
        loss = loss + 6 * (1 - F.cosine_similarity(image, image0).mean())
        prototypes = F.normalize(model.prompt_learner.VPT_fc.weight, dim=-1)
        nearest = [F.cross_entropy(10 * i @ prototypes.T, labels) for i in (image, image0)]
        return loss + 0.5 * sum(nearest)

    def fast_loss(images, labels):
        return sep.SEP.loss(trainer, images, labels)[0]

    return model, {"fast": (model, fast_loss), "plain": (plain, plain_loss)}


@pytest.mark.parametrize(("reference", "path"), RUNS)
def test_logits_gradients_and_four_steps_equal_the_released_code(reference, path, clip_model):
    case, norms = reference["case"], reference["grad_norm"]
    model, paths = build(case, clip_model)
    device = clip_model.logit_scale.device
    model.to(device)
    # Modules without a gradient in the released code (unused ones of SEP) do not exist here.
    set_prompts(model.prompt_learner, {k: v for k, v in reference["learnable"].items() if k in norms}, case["salt"])
    forward, loss_of = paths[path]
    images = reference_images(case["batch"], case["salt"]).to(device)
    labels = torch.arange(case["batch"], device=device)

    with torch.no_grad():
        torch.testing.assert_close(forward(images).cpu(), torch.tensor(reference["logits"]), atol=2e-3, rtol=0)

    optimizer = torch.optim.SGD(model.prompt_learner.parameters(), lr=case.get("lr", 0.01))
    for step, expected in enumerate(reference["losses"]):
        loss = loss_of(images, labels)
        assert loss.item() == pytest.approx(expected, abs=1e-3)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            actual = {name: p.grad.norm().item() for name, p in model.prompt_learner.named_parameters()}
            assert actual == pytest.approx(norms, rel=0.01)
        optimizer.step()
