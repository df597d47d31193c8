"""open_clip's backbones are found by its names, refused if their layout differs, and equal its own models."""

import random

import open_clip
import open_clip.factory
import open_clip.pretrained
import pytest
import torch
from hostile import Calls
from safetensors.torch import save_file
from small_clip import SMALL_HEADS, make_small_clip, open_clip_config, save_small_clip
from small_resnet import shake

import clip
from basics import UserError, sha256
from clip import open_clip_weights
from clip.weights import backbone_pixels

TEXTS = ["a photo of a cat.", "dog", "a long text about an abandoned factory by the sea, seen from a Boeing 747-400"]
CUT = 2  # layers of each tower; all widths, heads and patches are those of the real model


@pytest.fixture
def add_model(tmp_path, monkeypatch):
    """Return add_model(name, config), which makes `name` one of open_clip's model configurations."""

    def add(name, config):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)

    return add


@pytest.fixture
def publish(monkeypatch):
    """Return publish(model, tag, file, **entries), which makes a file on disk one of open_clip's published weights."""

    def make(model, tag, file, **entries):
        tags = open_clip.pretrained._PRETRAINED.get(model, {})
        entry = open_clip.pretrained._pcfg(hf_hub="some/where/", file=str(file), **entries)
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, model, {**tags, tag: entry})

    return make


def small_config():
    """Describe the small CLIP as open_clip would, with its default GELU."""
    return {k: v for k, v in open_clip_config(make_small_clip().config).items() if k != "quick_gelu"}


@pytest.fixture
def small_file(tmp_path, add_model):
    """Save the small CLIP without metadata, with its configuration under the name `Small`."""
    add_model("Small", small_config())
    return save_small_clip(tmp_path / "small.safetensors", sizes=False)


@pytest.mark.parametrize(
    "name", ["ViT-B-16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ViT-B-32", "ViT-L-14"))]
)
def test_features_equal_open_clips_own_model(name, tmp_path, add_model, publish):
    config = open_clip.get_model_config(name)
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = CUT
    add_model("Cut", config)
    path = tmp_path / "cut.safetensors"
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    tokens = open_clip.tokenize(TEXTS)
    state, found = None, {}
    for activation in ("quick_gelu", "gelu"):
        theirs = open_clip.create_model("Cut", pretrained=None, force_quick_gelu=activation == "quick_gelu").eval()
        if state is None:
            state = shake(theirs, seed=1).state_dict()
            save_file(state, path)
        theirs.load_state_dict(state)
        publish("Cut", activation, path, quick_gelu=activation == "quick_gelu")
        ours = clip.load_clip(f"open_clip:Cut/{activation}")
        assert ours.config.activation == activation
        # The file alone is read with QuickGELU: whatever else decides the features is part of the digest.
        assert (ours.weights_sha256 == sha256(path)) == (activation == "quick_gelu")
        with torch.no_grad():
            features = ours.encode_image(images), ours.encode_text(clip.tokenize(TEXTS))
            torch.testing.assert_close(features[0], theirs.encode_image(images), atol=1e-4, rtol=0)
            torch.testing.assert_close(features[1], theirs.encode_text(tokens), atol=1e-4, rtol=0)
        found[activation] = features
    for quick, exact in zip(*found.values(), strict=True):  # the two activations differ
        assert (quick - exact).abs().max() > 1e-3


def test_token_numbers_equal_open_clips():
    draw = random.Random(0)
    texts = [
        "",
        "  spaces \t and\nlines ",
        "It's they're I'll we'd",
        "1234567890 3.14 1,000",
        "a" * 300,
        "word " * 200,
        "Ünïcödé — “quotes” … ½ № 漢字 ひらがな кот γάτα قطة חתול 🐈‍⬛ 👍🏽",
        "&amp; &lt;b&gt; &quot;",
        "<start_of_text> cat <end_of_text>",
        "UPPER lower MiXeD",
        "???!!!...###$$$%%%^^^",
        "\u00e9 and e\u0301, \ufb01ne, \u200bzero width",
    ]
    alphabet = [*"abcdefghijklmnopqrstuvwxyzABCXYZ0123456789 .,;:!?'\"-_/()&<>#@", *"äéñçßøłжщλπ中文字日本語🐈🌍½²–’"]
    texts += ["".join(draw.choices(alphabet, k=draw.randint(1, 120))) for _ in range(400)]
    assert torch.equal(clip.tokenize(texts, truncate=True), open_clip.tokenize(texts))


def test_heads_and_activation_come_from_the_configuration(small_file, small_clip):
    model = clip.load_clip(f"open_clip:Small/{small_file}")
    assert (model.config.vision_heads, model.config.text_heads) == SMALL_HEADS and model.config.activation == "gelu"
    assert all(torch.equal(v, small_clip.state_dict()[k]) for k, v in model.state_dict().items())
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_a_checkpoint_of_training_with_open_clip_is_read(small_file, small_clip, tmp_path):
    state = {f"module.{k}": v for k, v in small_clip.state_dict().items()}
    state["module.logit_scale"] = state["module.logit_scale"].reshape(1)
    torch.save({"epoch": 3, "name": "run", "state_dict": state}, tmp_path / "epoch_3.pt")
    model = clip.load_clip(f"open_clip:Small/{tmp_path / 'epoch_3.pt'}")
    assert torch.equal(model.logit_scale, small_clip.logit_scale)


def test_published_weights_decide_the_activation_not_the_models_name(small_file, add_model, publish):
    add_model("Small-quickgelu", {**small_config(), "quick_gelu": True})
    publish("Small-quickgelu", "exact", small_file)
    assert clip.load_clip("open_clip:Small-quickgelu/exact").config.activation == "gelu"
    assert clip.load_clip(f"open_clip:Small-quickgelu/{small_file}").config.activation == "quick_gelu"


def test_published_weights_state_their_image_statistics(small_file, publish):
    publish("Small", "other", small_file, mean=(0.5, 0.5, 0.5), std=(0.4, 0.4, 0.4))
    assert backbone_pixels("Small/other") == ((0.5, 0.5, 0.5), (0.4, 0.4, 0.4))
    assert backbone_pixels(f"Small/{small_file}") is None


def test_an_unknown_model_or_tag_gets_a_similar_suggestion():
    with pytest.raises(
        UserError, match=r"open_clip:ViT-B16/openai: expected .*, got 'ViT-B16'. Did you mean .*'ViT-B-16'"
    ):
        clip.load_clip("open_clip:ViT-B16/openai")
    with pytest.raises(UserError, match=r"one of openai, .*, got 'laion2b_e61'. Did you mean 'laion2b_e16'"):
        clip.load_clip("open_clip:ViT-B-32/laion2b_e61")
    with pytest.raises(
        UserError, match=r"open_clip:ViT-B-32: expected .* one of openai, .*, got ''\. Did you mean 'ViT-B/32'\?$"
    ):
        clip.load_clip("open_clip:ViT-B-32")


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("coca_ViT-B-32/laion2b_s13b_b90k", "multimodal_cfg.*vision_cfg.attentional_pool True"),
        ("ViT-B-16-SigLIP/webli", "vision_cfg.timm_model_name 'vit_base_patch16_siglip_224'.*vocab_size 32000"),
        ("convnext_base/laion400m_s13b_b51k", "vision_cfg.timm_model_name 'convnext_base'"),
        ("ViT-L-14-CLIPA/datacomp1b", "vision_cfg.no_ln_pre True.*text_cfg.pool_type 'last'"),
        ("roberta-ViT-B-32/laion2b_s12b_b32k", "text_cfg.hf_model_name 'roberta-base'"),
        ("ViT-bigG-14/laion2b_s39b_b160k", "vision_cfg.mlp_ratio 4.9231"),
    ],
)
def test_another_layout_is_refused_by_key_before_any_download(name, difference, monkeypatch):
    monkeypatch.setattr(open_clip.pretrained, "download_pretrained", lambda *_: pytest.fail("downloads"))
    with pytest.raises(UserError, match=f"expected the layout of OpenAI's models.*differs in .*{difference}"):
        clip.load_clip(f"open_clip:{name}")


def test_every_published_plain_clip_is_accepted():
    def accepted(model):
        try:
            return open_clip_weights.config_from_open_clip(open_clip.get_model_config(model), "gelu", model)
        except UserError:
            return None

    sizes = {model: accepted(model) for model, _ in open_clip.list_pretrained()}
    plain = {"RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-32-256", "ViT-B-16", "ViT-H-14"}
    plain |= {"ViT-B-16-plus-240", "ViT-L-14", "ViT-L-14-336", "ViT-H-14-378"}
    assert {m.removesuffix("-quickgelu") for m in sizes if sizes[m]} >= plain  # newer releases may publish more
    assert (sizes["ViT-H-14"].vision_heads, sizes["ViT-H-14"].text_heads) == (16, 16)  # heads of 80 and 64


def test_weights_of_another_size_are_refused_by_name(small_file, add_model):
    config = small_config()
    config["embed_dim"] += 4
    add_model("Wide", config)
    with pytest.raises(
        UserError, match=f"sizes of open_clip:Wide.*, got embed_dim 64 instead of {config['embed_dim']}"
    ):
        clip.load_clip(f"open_clip:Wide/{small_file}")


def test_a_missing_network_gives_a_clear_message(monkeypatch):
    def refuse(**_):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", refuse)
    with pytest.raises(UserError, match=r"ViT-B-32/laion2b_e16: expected its weights from timm.*unreachable"):
        clip.load_clip("open_clip:ViT-B-32/laion2b_e16")


def test_a_published_file_with_a_command_is_refused_and_runs_nothing(tmp_path, small_file, publish):
    torch.save({"state_dict": Calls(open, str(tmp_path / "ran"), "w")}, tmp_path / "evil.bin")
    publish("Small", "evil", tmp_path / "evil.bin")
    with pytest.raises(UserError, match="evil.bin: expected tensors only"):
        clip.load_clip("open_clip:Small/evil")
    assert not (tmp_path / "ran").exists()
