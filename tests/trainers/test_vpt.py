"""VPT's pools, locations, and linear head, against a plain statement of the released code's rules."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests import plain_clip

LINEAR = ["TRAINER.VPT.HEAD", "linear"]
DEPTH = ["TRAINER.VPT.PROMPT_DEPTH_VISION", 2, "TRAINER.VPT.N_CTX_VISION", 3]


def of(trainer):
    """The frozen CLIP's state, its heads, the prompts of each layer, and the test images."""
    clip_model, learner = trainer.model.clip, trainer.model.prompt_learner
    trainer.set_model_mode("eval")
    heads = clip_model.config.vision_heads, clip_model.config.text_heads
    prompts = [learner.get_parameter(name).detach() for name in learner.names]
    return clip_model.state_dict(), heads, prompts, next(iter(trainer.test_loader))["img"]


POOLS = {
    "cls": lambda x, n: x[:, :1],
    "patches": lambda x, n: x[:, 1:n],
    "prompts": lambda x, n: x[:, n:],
    "all": lambda x, n: x[:, 1:],  # the patches and the prompts, without CLS
}


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_is_the_mean_of_the_normalized_tokens(make_trainer, pool):
    trainer = make_trainer("VPT", *DEPTH, "TRAINER.VPT.POOL", pool)
    state, heads, (first, *deep), images = of(trainer)
    x = plain_clip.embed_image(state, images)
    n = x.shape[1]
    x = torch.cat([x, plain_clip.layer_norm(state, "visual.ln_pre", first).expand(len(x), -1, -1)], dim=1)

    def before_layer(i, x):
        return torch.cat([x[:n], plain_clip.expand(deep[i - 1], x)]) if 0 < i <= len(deep) else x

    x, _ = plain_clip.layers(state, "visual.transformer.", x, heads[0], None, before_layer)
    pooled = plain_clip.layer_norm(state, "visual.ln_post", POOLS[pool](x, n)).mean(dim=1)
    expected = F.normalize(pooled @ state["visual.proj"], dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(trainer.model.image_features(images), expected, atol=1e-5, rtol=0)


def test_added_prompts_are_summed_with_every_token(make_trainer):
    trainer = make_trainer("VPT", *DEPTH, "TRAINER.VPT.LOCATION", "add")
    state, heads, prompts, images = of(trainer)
    x = plain_clip.embed_image(state, images)
    assert all(prompt.shape == x.shape[1:] for prompt in prompts)

    def before_layer(i, x):
        return x + prompts[i][:, None] if i < len(prompts) else x

    x, _ = plain_clip.layers(state, "visual.transformer.", x, heads[0], None, before_layer)
    expected = F.normalize(plain_clip.project_image(state, x[:, 0]), dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(trainer.model.image_features(images), expected, atol=1e-5, rtol=0)


def test_a_linear_head_starts_as_released(make_trainer):
    weights = [make_trainer("VPT", *LINEAR, "SEED", seed).model.prompt_learner.head.weight for seed in range(20)]
    deviation = torch.stack(weights).std().item()
    assert deviation == pytest.approx((2 / len(weights[0])) ** 0.5, rel=0.05)  # Kaiming, fan-out: of the classes
    bias = make_trainer("VPT", *LINEAR).model.prompt_learner.head.bias
    assert torch.equal(bias.detach(), torch.full_like(bias, -math.log(99)))


@pytest.mark.parametrize("tune", ["linear", "partial", "bias", "prompts+bias", "full"])
def test_a_protocol_trains_exactly_its_parameters(make_trainer, tune):
    trainer = make_trainer("VPT", *LINEAR, "TRAINER.VPT.TUNE", tune)
    learner, config = trainer.model.prompt_learner, trainer.model.clip.config
    trained = {name for name, p in learner.named_parameters() if p.requires_grad} - {"head.weight", "head.bias"}
    tower = {f"tower.{name}" for name, _ in trainer.model.clip.visual.named_parameters() if name != "proj"}
    last = f"tower.transformer.resblocks.{config.vision_layers - 1}."
    expected = {
        "linear": set(),
        "partial": {name for name in tower if name.startswith((last, "tower.ln_post."))},
        "bias": {name for name in tower if name.endswith("bias")},
        "prompts+bias": {name for name in tower if name.endswith("bias")} | {"image_encoder.VPT"},
        "full": tower,
    }
    assert trained == expected[tune]
