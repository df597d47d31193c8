"""VPT's pools, locations, and linear head, against a plain statement of the released code's rules."""

import math

import pytest
import torch
import torch.nn.functional as F
from yacs.config import CfgNode

from clip import CLIP, CLIPConfig
from tests import plain_clip
from trainers import vpt

LINEAR = ["TRAINER.VPT.HEAD", "linear"]
DEPTH = ["TRAINER.VPT.PROMPT_DEPTH_VISION", 2, "TRAINER.VPT.N_CTX_VISION", 3]


def of(trainer):
    """Return the frozen CLIP's state, its heads, the prompts of each layer, and the test images."""
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


def plain_features(state, images, heads, first=None, **changes):
    """Encode images with `first` tokens (n, width) after the patches, and changes as in `layers`."""
    x = plain_clip.embed_image(state, images)
    if first is not None:
        x = torch.cat([x, plain_clip.layer_norm(state, "visual.ln_pre", first).expand(len(x), -1, -1)], dim=1)
    x, _ = plain_clip.layers(state, "visual.transformer.", x, heads[0], **changes)
    return F.normalize(plain_clip.project_image(state, x[:, 0]), dim=-1)


def assert_features(trainer, images, expected):
    with torch.no_grad():
        torch.testing.assert_close(trainer.model.image_features(images), expected, atol=1e-5, rtol=0)


def test_prompts_from_the_last_layers_join_there(make_trainer):
    trainer = make_trainer("VPT", *DEPTH, "TRAINER.VPT.PROMPTS_FROM", "last")
    state, heads, prompts, images = of(trainer)
    learner, n = trainer.model.prompt_learner, plain_clip.embed_image(state, images).shape[1]
    assert learner.names == [f"image_encoder.transformer.resblocks.{i}.VPT_shallow" for i in (1, 2)]

    def before_layer(i, x):
        return x if i == 0 else torch.cat([x[:n], plain_clip.expand(prompts[i - 1], x)])

    assert_features(trainer, images, plain_features(state, images, heads, before_layer=before_layer))


def test_shared_prompts_are_one_tensor_in_every_layer(make_trainer):
    trainer = make_trainer("VPT", *DEPTH, "TRAINER.VPT.SHARED", True)
    state, heads, (prompts, _), images = of(trainer)
    assert [name for name, _ in trainer.model.prompt_learner.named_parameters()] == ["image_encoder.VPT"]
    n = plain_clip.embed_image(state, images).shape[1]

    def before_layer(i, x):
        return torch.cat([x[:n], plain_clip.expand(prompts, x)]) if i == 1 else x

    assert_features(trainer, images, plain_features(state, images, heads, prompts, before_layer=before_layer))


def test_a_pixel_prompt_is_cut_into_patches_without_a_position(make_trainer):
    trainer = make_trainer("VPT", "TRAINER.VPT.LOCATION", "pixel", "TRAINER.VPT.N_CTX_VISION", 2)
    state, heads, (picture,), images = of(trainer)
    size = state["visual.conv1.weight"].shape[-1]
    assert picture.shape == (3, size, 2 * size)
    kernel = state["visual.conv1.weight"].flatten(1)
    patches = torch.stack([kernel @ patch.flatten() for patch in picture.split(size, dim=-1)])
    assert_features(trainer, images, plain_features(state, images, heads, patches))


def test_an_adapter_follows_the_mlp_of_every_layer(make_trainer):
    trainer = make_trainer("VPT", *LINEAR, "TRAINER.VPT.TUNE", "adapter")
    state, heads, _, images = of(trainer)
    adapters = trainer.model.prompt_learner.adapters
    torch.manual_seed(0)
    for adapter in adapters:
        torch.nn.init.normal_(adapter.up.weight, std=0.1)
        torch.nn.init.normal_(adapter.up.bias, std=0.1)

    def mlp_update(i, x, m):
        down, up = adapters[i].down, adapters[i].up
        return m + F.linear(F.gelu(F.linear(m, down.weight, down.bias)), up.weight, up.bias)

    with torch.no_grad():
        assert_features(trainer, images, plain_features(state, images, heads, mlp_update=mlp_update))


def test_a_side_network_is_mixed_with_the_frozen_feature(make_trainer):
    options = [*LINEAR, "TRAINER.VPT.TUNE", "side", "TRAINER.VPT.SIDE_WEIGHTS", "random"]
    trainer = make_trainer("VPT", *options)
    _, _, _, images = of(trainer)
    learner = trainer.model.prompt_learner
    with torch.no_grad():
        learner.side.alpha.fill_(0.7)
        frozen = trainer.model.pooled(images)
        enlarged = F.interpolate(images, size=(63, 63), mode="bilinear")
        side = learner.side.proj(F.adaptive_avg_pool2d(learner.side.features(enlarged), (6, 6)).flatten(1))
        share = 1 / (1 + math.exp(-0.7))
        expected = learner.head(share * frozen + (1 - share) * side)
        torch.testing.assert_close(trainer.model(images), expected, atol=1e-5, rtol=0)


def test_an_mlp_head_has_hidden_layers_as_wide_as_the_tower(make_trainer):
    trainer = make_trainer("VPT", *LINEAR, "TRAINER.VPT.TUNE", "linear", "TRAINER.VPT.HEAD_LAYERS", 3)
    learner, width = trainer.model.prompt_learner, trainer.model.clip.config.vision_width
    shapes = [tuple(layer.weight.shape) for layer in learner.head.modules() if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(width, width), (width, width), (5, width)]


# Of the released code, ViT-B/16, 100 classes. `full` trains a further norm of CLIP (1,536 numbers), but no bias of
# the patch embedding (768).
COUNTS = {
    76_900: {"TUNE": "linear"},
    1_261_156: {"TUNE": "linear", "HEAD_LAYERS": 3},
    85_875_556 + 1_536 - 768: {"TUNE": "full"},
    7_166_308: {"TUNE": "partial"},
    28_429_924: {"TUNE": "partial", "PARTIAL": 4},
    179_812: {"TUNE": "bias"},
    9_624_485: {"TUNE": "side", "SIDE_WEIGHTS": "random"},
    1_856_740: {"TUNE": "adapter", "ADAPTER_REDUCTION": 8},
    307_444: {"TUNE": "adapter", "ADAPTER_REDUCTION": 64},
    76_900 + 768 * 10: {"N_CTX_VISION": 10},
    76_900 + 9_216 * 50: {"N_CTX_VISION": 50, "PROMPT_DEPTH_VISION": 12},
    228_196: {"LOCATION": "add"},
}


@pytest.mark.parametrize(("count", "options"), COUNTS.items(), ids=map(str, COUNTS.values()))
def test_as_many_parameters_are_trained_as_in_the_released_code(count, options):
    cfg = CfgNode({"TRAINER": {}})
    vpt.extend_cfg(cfg)
    cfg.TRAINER.VPT.merge_from_other_cfg(CfgNode({"HEAD": "linear", **options}))
    with torch.device("meta"):
        backbone = CLIP(CLIPConfig(224, 16, 768, 12, 12, 512, 12, 8, 512, 77, 49408)).requires_grad_(False)
        learner = vpt.PromptLearner(backbone, 100, cfg.TRAINER.VPT)
    assert sum(p.numel() for p in learner.parameters() if p.requires_grad) == count


@pytest.mark.parametrize("options", [[], ["TRAINER.VPT.TUNE", "linear", "TRAINER.VPT.HEAD_LAYERS", 2]])
def test_the_last_bias_of_a_linear_head_has_no_weight_decay(make_trainer, options):
    trainer = make_trainer("VPT", *LINEAR, *options, "OPTIM.WEIGHT_DECAY", 0.1)
    learner = trainer.model.prompt_learner
    *_, last = learner.head.modules()
    decay = {id(p): group["weight_decay"] for group in trainer.optim.param_groups for p in group["params"]}
    assert {name for name, p in learner.named_parameters() if not decay[id(p)]} == {
        name for name, p in learner.named_parameters() if p is last.bias
    }
    assert len(decay) == len(list(learner.parameters()))


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
