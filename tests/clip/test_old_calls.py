"""clip.clip and clip.model offer the names and calls of OpenAI's code and of the CoOp family's copies of it."""

import os
import warnings

import open_clip.pretrained
import plain_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_clip import SMALL_HEADS, make_small_clip, save_small_clip
from small_resnet import make_small_resnet

from basics import UserError
from clip import ClassWords, encode_image, encode_words, image_segments, load_clip, tokenize, weights
from clip import clip as old
from clip.model import build_model, config_tensors, convert_weights

NAMES = ["cat", "Boeing 747-400", "sea horse"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clip"


@pytest.fixture
def images():
    return torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def state():
    model = make_small_clip()
    return {**model.state_dict(), **config_tensors(model.config)}


@pytest.fixture
def exact(state):
    """Restore float32 weights, which build_model rounds, for comparisons."""
    return restore(build_model(state), state)


@pytest.fixture
def small_file(tmp_path):
    return save_small_clip(tmp_path / "small.safetensors")


def restore(model, state):
    model.float().load_state_dict({k: v for k, v in state.items() if k in model.state_dict()}, strict=False)
    return model.requires_grad_(False)


def embedded(model, n_ctx, ctx=None):
    """Embed texts as the family's files do, (77, C, width), and return the positions of their ends."""
    tokens = tokenize([" ".join(["X"] * n_ctx) + f" {name}." for name in NAMES])
    x = model.token_embedding(tokens)
    if ctx is not None:
        x = torch.cat([x[:, :1], ctx.expand(len(x), -1, -1), x[:, 1 + n_ctx :]], dim=1)
    return (x + model.positional_embedding).transpose(0, 1), tokens.argmax(dim=-1)


def text_features(model, x, end):
    x = model.ln_final(x.transpose(0, 1))[torch.arange(len(end)), end] @ model.text_projection
    return F.normalize(x, dim=-1)


# build_model


def test_a_built_model_multiplies_in_half_precision(state):
    model = build_model(state)
    assert model.dtype == model.text_projection.dtype == model.visual.proj.dtype == torch.float16
    kept = (model.ln_final.weight, model.token_embedding.weight, model.visual.class_embedding, model.logit_scale)
    assert all(tensor.dtype == torch.float32 for tensor in kept)
    assert not model.training and all(p.requires_grad for p in model.parameters())
    assert model.config == make_small_clip().config and model.visual.output_dim == model.config.embed_dim
    assert (model.transformer.width, model.transformer.layers) == (16, 2)


def test_the_features_of_a_built_model_equal_those_of_the_towers(small_clip, exact, state, images):
    tokens = tokenize(NAMES)
    torch.testing.assert_close(exact.encode_image(images), small_clip.encode_image(images))
    torch.testing.assert_close(exact.encode_text(tokens), small_clip.encode_text(tokens), atol=1e-5, rtol=0)
    half = build_model(state)
    near = half.encode_text(tokens).float(), half.encode_image(images).float()
    torch.testing.assert_close(near[0], small_clip.encode_text(tokens), atol=0.1, rtol=0.02)
    torch.testing.assert_close(near[1], small_clip.encode_image(images), atol=0.1, rtol=0.02)


def test_a_resnet_can_be_built():
    own = make_small_resnet()
    state = {**own.state_dict(), **config_tensors(own.config)}
    state.pop("visual.bn1.num_batches_tracked")  # missing in some files
    model, images = build_model(state), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert model.dtype == torch.float16 and model.visual.output_dim == own.config.embed_dim
    model.float()
    torch.testing.assert_close(model.encode_image(images), own.encode_image(images), atol=0.05, rtol=0.02)
    with pytest.raises(UserError, match="expected a ViT.*, got a ResNet"):
        build_model(state, {"trainer": "IVLP", "vision_depth": 1, "vision_ctx": 2})


def test_training_a_built_model_leaves_the_callers_weights_unchanged(state):
    before = {k: v.clone() for k, v in state.items()}
    for parameter in build_model(state).parameters():
        parameter.data += 1
    assert all(torch.equal(state[k], before[k]) for k in before)


def test_without_numbers_heads_are_64_wide():
    sizes = {"image_size": 16, "vision_width": 64, "text_width": 128, "vision_heads": 1, "text_heads": 2}
    model = type(make_small_clip())(type(make_small_clip().config)(**{**vars(make_small_clip().config), **sizes}))
    alongside = {"input_resolution": torch.tensor(16), "vocab_size": torch.tensor(49408)}
    assert build_model({**model.state_dict(), **alongside}).config == model.config


def test_weights_of_another_model_are_refused(state):
    state["ln_final.bias"] = torch.zeros(7)
    with pytest.raises(UserError, match="build_model's state_dict: expected the tensors of a CLIP(.|\n)*ln_final.bias"):
        build_model(state)
    with pytest.raises(UserError, match="build_model's state_dict: expected a CLIP"):
        build_model({"weight": torch.zeros(1)})


def test_convert_weights_handles_torchs_own_attention():
    block = torch.nn.TransformerEncoderLayer(8, 2)
    convert_weights(block)
    assert block.self_attn.in_proj_weight.dtype == block.linear1.weight.dtype == torch.float16
    assert block.norm1.weight.dtype == torch.float32


# The family's calls


def test_an_additive_mask_replaces_the_mask_of_the_tower(small_clip, exact):
    # RPO: prompts after the end of the text attend to the tokens up to it, and no token attends to them.
    prompts, texts = torch.randn(2, 16, generator=torch.Generator().manual_seed(2)), [f"a {name}." for name in NAMES]
    tokens = tokenize(texts)
    x, length = exact.token_embedding(tokens) + exact.positional_embedding, tokens.argmax(dim=-1) + 1
    masks = torch.full((len(x), 77, 77), float("-inf")).triu(1)
    for row, mask, n in zip(x, masks, length, strict=True):
        row[n : n + 2] = prompts
        mask[:, n:] = float("-inf")
    hidden = exact.transformer(x.transpose(0, 1), masks.repeat_interleave(SMALL_HEADS[1], dim=0)).transpose(0, 1)
    found = torch.stack([row[n : n + 2] for row, n in zip(exact.ln_final(hidden), length, strict=True)])
    plain, _, _ = plain_clip.rpo_text(small_clip.state_dict(), texts, prompts, SMALL_HEADS)
    torch.testing.assert_close(F.normalize(found @ exact.text_projection, dim=-1), plain, atol=1e-5, rtol=0)

    image = exact.visual.embed(torch.randn(2, 3, 24, 24))
    mask = torch.zeros(10, 10)
    mask[:, 8:] = float("-inf")  # no token attends to the last two
    alone, alongside = (exact.visual.transformer(image.transpose(0, 1), m)[0] for m in (torch.zeros(10, 10), mask))
    expected = exact.visual.transformer(image[:, :8].transpose(0, 1))[0]
    torch.testing.assert_close(alongside, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(alone, expected, atol=1e-3)


def test_the_calls_of_maple_give_the_features_of_our_own_functions(small_clip, exact, images):
    draw = torch.Generator().manual_seed(3)
    text, vision = (torch.randn(2, 4, width, generator=draw) for width in (16, 32))  # layers 0 and 1, 4 prompts each
    x, end = embedded(exact, 4, text[0])
    found, deep, used = exact.transformer([x, torch.nn.ParameterList([text[1]]), 0])
    assert used == len(deep) == 1
    own = encode_words(small_clip, ClassWords(small_clip, NAMES, 4), text[0], [text[1]])
    torch.testing.assert_close(text_features(exact, found, end), own, atol=1e-5, rtol=0)
    found = F.normalize(exact.visual(images, vision[0], [vision[1]]), dim=-1)
    own = encode_image(small_clip, image_segments(small_clip, images, vision[0], [vision[1]]))
    torch.testing.assert_close(found, own, atol=1e-5, rtol=0)


def test_prompts_inside_the_towers_are_where_those_of_maple_are(state, exact, images):
    design = {"trainer": "IVLP", "vision_depth": 2, "vision_ctx": 2, "language_depth": 2, "language_ctx": 4}
    model = restore(build_model(state, design), state)
    prompts = {name: value for name, value in model.named_parameters() if "VPT" in name}
    assert {name: tuple(value.shape) for name, value in prompts.items()} == {
        "visual.VPT": (2, 32),
        "visual.transformer.resblocks.1.VPT_shallow": (2, 32),
        "transformer.resblocks.1.VPT_shallow": (4, 16),
    }
    first, later, text = (prompts[name] for name in sorted(prompts, key=lambda n: (n[0] == "t", n != "visual.VPT")))
    torch.testing.assert_close(model.encode_image(images), exact.visual(images, first, [later]))
    x, _ = embedded(exact, 4)
    torch.testing.assert_close(model.transformer(x), exact.transformer([x, [text], 0])[0])
    assert not torch.allclose(model.encode_text(tokenize(NAMES)), exact.encode_text(tokenize(NAMES)), atol=1e-4)


@pytest.mark.parametrize("trainer", ["CoOp", "IVLP", "VPT", "MaPLe", "Other"])
def test_a_design_of_depth_zero_adds_nothing(state, trainer):
    model = build_model(state, {"trainer": trainer, "vision_depth": 0, "language_depth": 0})
    assert model.state_dict().keys() == make_small_clip().state_dict().keys()


def test_designs_and_calls_of_other_repositories_are_refused(state, exact):
    with pytest.raises(UserError, match="expected trainer IVLP or VPT, .*got trainer 'Other'"):
        build_model(state, {"trainer": "Other", "vision_depth": 1, "vision_ctx": 2})
    with pytest.raises(UserError, match="got 2 items.*the clip/ of its own repository"):
        exact.transformer([torch.zeros(77, 1, 16), None])


# clip.clip


def test_torch_jit_load_refuses_a_download_and_torch_load_reads_it(small_file, small_clip, cache):
    path = old._download(old._MODELS[str(small_file)])
    with pytest.raises(RuntimeError), warnings.catch_warnings(action="ignore"):  # some releases of torch warn as well
        torch.jit.load(path, map_location="cpu")
    model = build_model(torch.load(path, map_location="cpu"))
    assert model.config == small_clip.config
    assert [file.name for file in cache.iterdir()] == [os.path.basename(path)]
    assert old._download(str(small_file), root=str(cache / "own")).startswith(str(cache / "own"))


def test_a_cache_that_cannot_be_written_gives_one_clear_message(small_file, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a writable file"):
        old._download(str(small_file), root=str(tmp_path / "file"))


def test_archives_of_openai_are_passed_on_unchanged(monkeypatch, tmp_path):
    urls = []
    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_url", lambda url: urls.append(url) or "/a.pt")
    address = old._MODELS["ViT-B/16"]
    assert address.startswith("https://") and address.endswith("/ViT-B-16.pt")
    assert old._download(address) == "/a.pt" and urls == [address]


def test_backbones_are_listed_and_unknown_ones_refused(tmp_path):
    assert list(old._MODELS) == old.available_models() == weights.available_models()
    assert "tiny" in old._MODELS and "ViT-B-16" not in old._MODELS
    with pytest.raises(UserError, match="Did you mean 'ViT-B/16'"):
        old._MODELS["ViT-B-16"]
    with pytest.raises(UserError, match="MODEL.BACKBONE.NAME: expected one of"):
        old._download(str(tmp_path / "none.pt"))


def test_load_gives_a_float32_model_on_the_cpu_and_its_transform():
    model, transform = old.load("tiny", device="cpu")
    pixels = transform(Image.new("L", (60, 50), 255))
    assert pixels.shape == (3, 40, 40)
    torch.testing.assert_close(pixels, torch.full((3, 40, 40), 0.5 / 0.27))
    features = load_clip("tiny").encode_image(pixels[None])
    torch.testing.assert_close(model.encode_image(pixels[None]), features, atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="expected jit=False"):
        old.load("tiny", jit=True)
