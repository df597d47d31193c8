"""The attention maps of the report are the weights that the plain path computes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import plain_clip
from trainers.attention_maps import attention_maps, choose_images, spread


def plain_weights(state, layer, x, heads):
    """Weights (N, n, n) of a layer on its input x (N, n, width), the mean over the heads."""
    block = f"visual.transformer.resblocks.{layer}."
    x = plain_clip.layer_norm(state, block + "ln_1", x).transpose(0, 1)
    projections = [state[block + f"attn.{name}"] for name in ("in_proj_weight", "in_proj_bias")]
    out = [state[block + f"attn.out_proj.{name}"] for name in ("weight", "bias")]
    return F.multi_head_attention_forward(
        x, x, x, x.shape[-1], heads, *projections, None, None, False, 0.0, *out, need_weights=True
    )[1]


def test_the_weights_equal_those_of_the_plain_path(make_trainer):
    options = ["TRAINER.VPT.N_CTX_VISION", 2, "TRAINER.VPT.PROMPT_DEPTH_VISION", 2]
    trainer = make_trainer("VPT", *options)
    trainer.set_model_mode("eval")
    maps, clip_model, learner = attention_maps(trainer), trainer.model.clip, trainer.model.prompt_learner
    assert maps["tokens"].tolist() == ["CLS", "prompts 1", "prompts 2"] and maps["layers"].tolist() == [1, 2, 3]
    state, heads = clip_model.state_dict(), clip_model.config.vision_heads
    images, truth, _ = choose_images(trainer)
    assert maps["truth"].tolist() == truth
    first, second = (learner.get_parameter(name).detach() for name in learner.names)
    x = plain_clip.embed_image(state, images)
    n = x.shape[1]
    x = torch.cat([x, plain_clip.layer_norm(state, "visual.ln_pre", first).expand(len(x), -1, -1)], dim=1)

    def before_layer(i, x):
        return torch.cat([x[:n], plain_clip.expand(second, x)]) if i == 1 else x

    _, hidden = plain_clip.layers(state, "visual.transformer.", x, heads, before_layer=before_layer)
    entering = [x, torch.cat([hidden[0][:, :n], second.expand(len(x), -1, -1)], dim=1), hidden[1]]
    for layer, tokens in enumerate(entering):
        weights = plain_weights(state, layer, tokens, heads)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:2]))
        for row, token in enumerate((0, n, n + 1)):
            found = torch.as_tensor(maps["attention"][:, row, layer].astype(np.float32)).flatten(1)
            expected = weights[:, token, 1:n]
            if layer == 2 and row:  # no token attends to what the prompts become in the last layer
                expected = torch.zeros_like(expected)
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=2e-3)


@pytest.mark.parametrize("method", ["RPO", "SEP", "VPT-last", "CoOp"])
def test_maps_exist_for_every_kind_of_image_tower(make, method):
    maps = attention_maps(make(method))
    images, tokens, layers = maps["attention"].shape[:3]
    assert (images, tokens, layers) == (len(maps["pictures"]), len(maps["tokens"]), len(maps["layers"]))
    totals = maps["attention"].astype(float).sum(axis=(3, 4))
    assert totals.max() <= 1.001 and totals[:, 0].max() > 0
    if method == "RPO":  # read-only prompts attend, in every layer; the last layer needs no CLS
        assert totals[:, 1:].min() > 0 and totals[:, 0, -1].max() == 0
    if method == "VPT-last":
        assert totals[:, 1:, 0].max() == 0 and totals[:, 1:, 1].min() > 0


def test_a_backbone_without_an_image_transformer_has_no_maps(make_trainer, monkeypatch):
    trainer = make_trainer("ZeroshotCLIP")
    monkeypatch.setattr("trainers.attention_maps.VisionTransformer", type(None))
    assert attention_maps(trainer) == {}


def test_tokens_and_layers_are_evenly_spaced():
    assert spread(12, 6) == [0, 2, 4, 7, 9, 11]
    assert spread(2, 6) == [0, 1] and spread(1, 3) == [0]
