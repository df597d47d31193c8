"""Without prompts each method is zero-shot CLIP; with a ViT-B/16 it has the number of parameters in its paper."""

import pytest
import torch
from reference import options, reference_clip
from torch import nn

from trainers import cocoop, coop, independent, ivlp, lp, maple, rpo, sep, vpt
from trainers.context import ContextCLIP
from trainers.prompted import FixedTextCLIP

NAMES = ["cat", "Boeing 747-400", "abandoned factory"]
TEXTS = [f"a photo of a {name}." for name in NAMES]


def without_meta_net(model):
    nn.init.zeros_(model.prompt_learner.meta_net.linear2.weight)
    nn.init.zeros_(model.prompt_learner.meta_net.linear2.bias)
    return model


IMAGE_ONLY = {"PROMPT_DEPTH_TEXT": 0, "PROMPT_DEPTH_VISION": 2}
REMOVED = {
    "CoOp": lambda c: ContextCLIP(c, NAMES, options(coop, CTX_INIT="a photo of a")),
    "CoCoOp": lambda c: without_meta_net(cocoop.CoCoOpCLIP(c, NAMES, options(cocoop, CTX_INIT="a photo of a"))),
    "MaPLe": lambda c: maple.MaPLeCLIP(c, NAMES, options(maple, N_CTX=0, PROMPT_DEPTH=2)),
    "IVLP": lambda c: independent.IndependentCLIP(c, NAMES, TEXTS, options(ivlp, N_CTX_VISION=0, **IMAGE_ONLY)),
    "VPT": lambda c: vpt.VPTCLIP(c, NAMES, TEXTS, options(vpt, N_CTX_VISION=0, PROMPT_DEPTH_VISION=3)),
    "LP": lambda c: lp.LPCLIP(c, TEXTS),
}


@pytest.mark.parametrize("method", REMOVED)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
def test_without_prompts_the_logits_are_those_of_zero_shot_clip(small_clip, method):
    images = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = FixedTextCLIP(small_clip, TEXTS)(images)
        torch.testing.assert_close(REMOVED[method](small_clip)(images), expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def vit_b16():
    return reference_clip(layers=1)  # the counts are independent of the number of layers


LEARNED = {
    "RPO, K 24": (30_720, lambda c: rpo.RPOCLIP(c, TEXTS, options(rpo))),
    "RPO, K 4": (5_120, lambda c: rpo.RPOCLIP(c, TEXTS, options(rpo, K=4))),
    "CoOp, 4 vectors": (2_048, lambda c: ContextCLIP(c, NAMES, options(coop, N_CTX=4))),
    "CoCoOp, 4 vectors": (35_360, lambda c: cocoop.CoCoOpCLIP(c, NAMES, options(cocoop, N_CTX=4))),
    "LP": (262_656, lambda c: lp.LPCLIP(c, TEXTS)),
    "MaPLe, 2 vectors, 9 layers": (3_555_072, lambda c: maple.MaPLeCLIP(c, NAMES, options(maple))),
}


@pytest.mark.parametrize("method", LEARNED)
def test_the_number_of_parameters_is_that_of_the_paper(vit_b16, method):
    expected, build = LEARNED[method]
    learned = sum(p.numel() for p in build(vit_b16).prompt_learner.parameters())
    print(f"{method}: {learned:,} learned parameters")
    assert learned == expected


def test_sep_has_no_unused_parameters():
    # SEP's released module also holds an unused LayerNorm and the originals of copied modules.
    learner = sep.PromptLearner(reference_clip(layers=1), 3, options(sep, LAYERS=[0]))
    names = {name.split(".")[0] for name, _ in learner.named_parameters()}
    assert names == {"ctx", "ctx_visual", "prompt_projections", "visual_prompts", "VPT_fc"}
