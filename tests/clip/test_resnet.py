"""ResNet backbones equal open_clip's, stay frozen with all statistics, and are refused for image prompts."""

import open_clip
import open_clip.factory
import pytest
import torch
from safetensors.torch import save_file
from small_resnet import make_small_resnet, shake

import clip
from basics import UserError, sha256

TEXTS = ["a photo of a cat.", "dog"]
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 1}


@pytest.fixture(scope="module")
def small_resnet():
    return make_small_resnet()


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("RN50", (3, 4, 6, 3)), pytest.param("RN101", (3, 4, 23, 3), marks=pytest.mark.slow)],
)
def test_features_equal_open_clips_own_model(name, blocks, tmp_path, monkeypatch):
    config = open_clip.get_model_config(name)
    config["vision_cfg"]["image_size"], config["text_cfg"] = 64, TEXT
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Cut", config)
    theirs = shake(open_clip.create_model("Cut", pretrained=None, force_quick_gelu=True), seed=1).eval()
    path = tmp_path / "resnet.safetensors"
    save_file(theirs.state_dict(), path)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours = clip.load_clip(str(path))
    assert ours.config.vision_blocks == blocks and ours.visual.input_resolution == 64
    assert ours.weights_sha256 == sha256(path)
    with torch.no_grad():
        expected = theirs.encode_image(images)
        assert expected.std() > 0.1  # the random network passes on a signal
        torch.testing.assert_close(ours.encode_image(images), expected, atol=1e-4, rtol=1e-4)
        text = theirs.encode_text(open_clip.tokenize(TEXTS))
        torch.testing.assert_close(ours.encode_text(clip.tokenize(TEXTS)), text, atol=1e-4, rtol=0)
        by_name = clip.load_clip(f"open_clip:Cut/{path}")
        assert by_name.config.activation == "gelu"
        assert torch.equal(by_name.encode_image(images), ours.encode_image(images))


def test_openais_names_lead_to_its_archives(monkeypatch, tmp_path):
    from open_clip import pretrained

    accessed = []

    def refuse(url):
        accessed.append(url.split("/")[-1])
        raise OSError("Network is unreachable")

    monkeypatch.setattr(pretrained, "download_pretrained_from_url", refuse)
    for name in ("RN50", "RN101"):
        assert name in clip.available_models()
        with pytest.raises(UserError, match=f"{name}: expected its weights from .*unreachable"):
            clip.load_clip(name)
    assert accessed == ["RN50.pt", "RN101.pt"]


@pytest.mark.parametrize("counts", [True, False])
def test_a_plain_state_dict_gives_back_the_model(counts, tmp_path, small_resnet, images):
    state = small_resnet.state_dict()
    if not counts:  # as in files of older versions
        state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "resnet.pt")
    model = clip.load_clip(str(tmp_path / "resnet.pt"))
    assert model.config == small_resnet.config
    assert torch.equal(model.encode_image(images), small_resnet.encode_image(images))


def test_training_mode_leaves_batch_norm_statistics_unchanged(images):
    model = make_small_resnet()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    expected = model.encode_image(images)
    torch.nn.Sequential(model).train()
    assert torch.equal(model.encode_image(images), expected)
    assert not any(module.training for module in model.visual.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_towers_stay_near_float32(dtype, tmp_path, small_resnet, images):
    torch.save(small_resnet.state_dict(), tmp_path / "resnet.pt")
    model = clip.load_clip(str(tmp_path / "resnet.pt"), dtype)
    assert model.dtype == dtype and model.visual.bn1.weight.dtype == torch.float32
    found, exact = model.encode_image(images), small_resnet.encode_image(images)
    assert found.dtype == dtype
    distance = 1 - torch.nn.functional.cosine_similarity(found.float(), exact)
    assert distance.max() < 1e-2


def test_an_image_of_another_size_is_refused(small_resnet):
    with pytest.raises(UserError, match="expected 32 x 32 pixels.*, got 64 x 64"):
        small_resnet.encode_image(torch.zeros(1, 3, 64, 64))


def test_weights_with_a_missing_layer_are_refused_by_key(tmp_path, small_resnet):
    state = dict(small_resnet.state_dict())
    del state["visual.layer3.0.bn2.running_var"]
    torch.save(state, tmp_path / "resnet.pt")
    with pytest.raises(UserError, match=r"visual.layer3.0.bn2.running_var \(missing\)"):
        clip.load_clip(str(tmp_path / "resnet.pt"))
    del state["visual.attnpool.positional_embedding"]
    torch.save(state, tmp_path / "resnet.pt")
    with pytest.raises(UserError, match="'visual.attnpool.positional_embedding' is missing"):
        clip.load_clip(str(tmp_path / "resnet.pt"))


@pytest.mark.parametrize(
    "access",
    [
        lambda model, images: clip.image_segments(model, images, torch.zeros(2, 8)),
        lambda model, images: model.visual.proj.shape,
        lambda model, images: model.visual.class_embedding,
        lambda model, images: model.visual.transformer,
        lambda model, images: model.config.vision_layers,
    ],
)
def test_a_request_for_image_tokens_names_the_setting_to_change(access, small_resnet, images):
    with pytest.raises(UserError, match="MODEL.BACKBONE.NAME: expected a ViT.*, got a ResNet"):
        access(small_resnet, images)


def test_hasattr_is_false_for_image_tokens(small_resnet):
    assert not hasattr(small_resnet.visual, "proj") and not hasattr(small_resnet.config, "patch_size")
    with pytest.raises(AttributeError, match="nonsense"):
        _ = small_resnet.visual.nonsense
