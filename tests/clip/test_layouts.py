"""Weights of every common layout give the towers of the native one, and others get one message that says why not."""

import json
from dataclasses import replace

import open_clip
import open_clip.factory
import pytest
import torch
from safetensors.torch import save_file
from small_clip import (
    as_transformers,
    make_small_clip,
    open_clip_config,
    transformers_config,
    write_open_clip,
    write_transformers,
)

import clip
from basics import UserError
from clip import sources
from clip.weights import backbone_pixels, copy_backbone

TEXTS = ["a photo of a cat.", "dog"]
SMALL = make_small_clip()
STATE = {k: v.contiguous() for k, v in SMALL.state_dict().items()}


def prefixed(prefix, state=STATE):
    return {prefix + k: v for k, v in state.items()}


def saved(folder, content, name="weights.pt"):
    """Save a checkpoint next to open_clip's configuration, and return its path."""
    return write_open_clip(folder, content, SMALL.config, name) / name


def shard(folder, ending=".safetensors"):
    """Divide the model of a folder of transformers among two files, as transformers does."""
    names = sorted(as_transformers(STATE))
    whole, files = as_transformers(STATE), [f"model-0000{i}-of-00002{ending}" for i in (1, 2)]
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        save_file({name: whole[name] for name in part}, folder / file)
    (folder / "model.safetensors").unlink()
    where = {name: files[i % 2] for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def pickled(folder):
    (folder / "model.safetensors").unlink()
    old = {"text_model.embeddings.position_ids": torch.arange(77)[None]}  # in files of older versions
    torch.save(as_transformers(STATE) | old, folder / "pytorch_model.bin")
    return folder


def renamed(folder):
    (folder / "model.safetensors").rename(folder / "my.safetensors")
    return folder / "my.safetensors"


def with_more_tokens(folder):
    """Add two tokens to the vocabulary, whose list proves that the others are CLIP's."""
    model, state = transformers_config(SMALL.config), as_transformers(STATE)
    model["text_config"]["vocab_size"] += 2
    name = "text_model.embeddings.token_embedding.weight"
    state[name] = torch.cat([state[name], torch.ones(2, 16)])
    write_transformers(folder, STATE, SMALL.config, **model)
    save_file(state, folder / "model.safetensors")
    (folder / "vocab.json").write_text(json.dumps(open_clip.tokenizer.SimpleTokenizer().encoder))
    return folder


TRAINING = {"epoch": 3, "name": "run", "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{}]}}
LAYOUTS = {
    "open_clip folder": lambda at: saved(at, STATE, "open_clip_model.safetensors").parent,
    "open_clip folder, pickled": lambda at: saved(at, STATE, "open_clip_pytorch_model.bin").parent,
    "open_clip training": lambda at: saved(at, TRAINING | {"state_dict": prefixed("module.")}),
    "model": lambda at: saved(at, {"model": STATE, "epoch": 1}),
    "model_state_dict": lambda at: saved(at, {"model_state_dict": prefixed("model.")}),
    "model, state_dict": lambda at: saved(at, {"model": {"state_dict": prefixed("module.model.clip.")}}),
    "text tower in a module": lambda at: saved(
        at, {k if k.startswith(("visual.", "logit")) else f"text.{k}": v for k, v in STATE.items()}
    ),
    "head": lambda at: saved(at, STATE | {"classifier.weight": torch.ones(3, 64), "logit_bias": torch.ones(1)}),
    "head outside": lambda at: saved(at, prefixed("clip.") | {"head.weight": torch.ones(3, 64)}),
    "transformers folder": lambda at: write_transformers(at, STATE, SMALL.config),
    "transformers folder, pickled": lambda at: pickled(write_transformers(at, STATE, SMALL.config)),
    "transformers, several files": lambda at: shard(write_transformers(at, STATE, SMALL.config)),
    "one of several files": lambda at: (
        shard(write_transformers(at, STATE, SMALL.config)) / "model-00001-of-00002.safetensors"
    ),
    "transformers file": lambda at: renamed(write_transformers(at, STATE, SMALL.config)),
    "transformers in a module": lambda at: saved(at, {"state_dict": prefixed("module.", as_transformers(STATE))}),
    "more tokens": with_more_tokens,
}
NOTES = {
    "head": "not used, because they belong to neither tower: classifier.weight, logit_bias",
    "head outside": "not used, because they belong to neither tower: head.weight",
    "more tokens": "not used: the 2 tokens after CLIP's vocabulary",
}


def logits(model, size=24):
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(images, clip.tokenize(TEXTS))[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_logits_of_the_native_one(layout, tmp_path, capsys):
    path = LAYOUTS[layout](tmp_path / "model")
    if layout == "transformers in a module":
        (path.parent / "open_clip_config.json").unlink()
        (path.parent / "config.json").write_text(json.dumps(transformers_config(SMALL.config)))
    assert clip.backbone_config(str(path)) == SMALL.config
    model = clip.load_clip(str(path))
    assert model.config == SMALL.config
    assert torch.equal(logits(model), logits(SMALL))
    error = capsys.readouterr().err
    assert (NOTES[layout] in error) if layout in NOTES else error == ""
    (tmp_path / "copy").mkdir()
    copy_backbone(str(path), tmp_path / "copy", "backbone")
    again = clip.load_clip(str(tmp_path / "copy" / "backbone"))
    assert again.weights_sha256 == model.weights_sha256 and torch.equal(logits(again), logits(SMALL))


def scrambled(shape, seed):
    """Return numbers between -1 and 1 that look random, by a formula."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (torch.sin(i * 12.9898 + seed * 78.233) * 43758.5453).frac().float().reshape(shape)


def test_features_equal_those_of_transformers(tmp_path):
    """The numbers are those of transformers 5.24 with the same tensors, GELU, and an epsilon of 0.001."""
    config = replace(SMALL.config, activation="gelu", layer_norm_eps=1e-3)
    folder = write_transformers(tmp_path / "model", STATE, config)
    names = sorted(as_transformers(STATE))
    tensors = {name: scrambled(as_transformers(STATE)[name].shape, seed) for seed, name in enumerate(names)}
    save_file(tensors, folder / "model.safetensors")
    model = clip.load_clip(str(folder))
    with torch.no_grad():
        image = torch.nn.functional.normalize(model.encode_image(scrambled((2, 3, 24, 24), 1)))
        text = torch.nn.functional.normalize(model.encode_text(clip.tokenize(TEXTS)))
    expected = [[-0.00378793, 0.21653147, 0.15457693, 0.05771457], [-0.0064888, 0.21600468, 0.15503068, 0.05991999]]
    torch.testing.assert_close(image[:, :4], torch.tensor(expected), atol=1e-5, rtol=0)
    expected = [[0.06623024, 0.26348603, 0.18438035, -0.00022106], [0.07660194, 0.25282437, 0.18355919, -0.01271777]]
    torch.testing.assert_close(text[:, :4], torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.fixture
def on_the_hub(tmp_path, monkeypatch):
    """Return cached(name): the folder of a model in the Hub's cache, as if it had been downloaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def cached(name):
        repository = tmp_path / "cache" / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        return repository / "snapshots" / ("0" * 40)

    return cached


def test_models_in_the_hubs_cache_are_found_without_a_network(on_the_hub, tmp_path):
    write_transformers(on_the_hub("me/transformers"), STATE, SMALL.config)
    write_open_clip(on_the_hub("me/open_clip"), STATE, SMALL.config)
    for name in ("hf-hub:me/transformers", "hf-hub:me/open_clip", "hf-hub:me/open_clip@main"):
        assert clip.backbone_config(name) == SMALL.config
        assert torch.equal(logits(clip.load_clip(name)), logits(SMALL))
    with pytest.raises(UserError, match="hf-hub:me/none: .*The Hub cannot be reached, and its cache has no such file"):
        clip.load_clip("hf-hub:me/none")
    write_transformers(on_the_hub("me/half"), STATE, SMALL.config).joinpath("model.safetensors").unlink()
    with pytest.raises(UserError, match="hf-hub:me/half: expected model.safetensors or .* The Hub cannot be reached"):
        clip.load_clip("hf-hub:me/half")
    with pytest.raises(UserError, match="hf-hub:a b: expected a model on the Hugging Face Hub .* HFValidationError"):
        clip.load_clip("hf-hub:a b")


def test_the_pixels_statistics_of_a_folder_are_read(tmp_path):
    folder = write_transformers(tmp_path / "transformers", STATE, SMALL.config)
    assert backbone_pixels(str(folder)) is None
    about = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": about}))
    assert backbone_pixels(str(folder)) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (folder / "preprocessor_config.json").write_text(json.dumps(about | {"image_std": [0.4, 0.5, 0]}))
    assert backbone_pixels(str(folder)) is None  # a deviation of 0
    folder = write_open_clip(tmp_path / "open_clip", STATE, SMALL.config)
    assert backbone_pixels(str(folder)) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_the_digest_covers_what_the_tensors_do_not_show(tmp_path, monkeypatch):
    changes = {"vision_heads": 2, "text_heads": 4, "activation": "gelu", "layer_norm_eps": 1e-3, "image_size": 24}
    found = {}
    for key, value in changes.items():
        folder = write_transformers(tmp_path / key, STATE, replace(SMALL.config, **{key: value}))
        model = clip.load_clip(str(folder))
        found[key] = model.weights_sha256
        assert torch.equal(logits(model), logits(SMALL)) == (key == "image_size")
    assert len(set(found.values())) == len(changes)


def test_open_clips_names_work_without_their_prefix(tmp_path, monkeypatch):
    described = open_clip_config(replace(SMALL.config, activation="gelu"))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", described)
    torch.save(TRAINING | {"state_dict": prefixed("module.")}, tmp_path / "epoch_3.pt")
    plain, named = (clip.load_clip(f"{prefix}Small/{tmp_path}/epoch_3.pt") for prefix in ("", "open_clip:"))
    assert plain.config.activation == "gelu" and plain.weights_sha256 == named.weights_sha256
    copy_backbone(f"Small/{tmp_path}/epoch_3.pt", tmp_path, "backbone")
    copied = clip.load_clip(str(tmp_path / "backbone"))
    assert torch.equal(logits(copied), logits(plain)) and copied.weights_sha256 == plain.weights_sha256
    assert clip.backbone_config("ViT-B-16/laion2b_s34b_b88k").activation == "gelu"
    for name in ("ViT-B-16/metaclip_400m", "ViT-B-16-quickgelu/dfn2b", "ViT-H-14-378-quickgelu/dfn5b"):
        assert clip.backbone_config(name).activation == "quick_gelu"


SIGLIP_STATE = {"visual.trunk.patch_embed.proj.weight": torch.ones(1), "text.transformer.x": torch.ones(1)}
BIOMED = {"embed_dim": 512, "vision_cfg": {"timm_model_name": "vit"}, "text_cfg": {"hf_model_name": "microsoft/Bert"}}


def other_config(at, **changes):
    write_transformers(at, STATE, SMALL.config, **changes)
    return at


def other_vocabulary(at, rows, vocabulary=None):
    state = STATE | {"token_embedding.weight": torch.ones(rows, 16)}
    config = replace(SMALL.config, vocab_size=rows)
    if vocabulary is None:
        at.mkdir()
        save_file(state, at / "x.safetensors", metadata={"sizes": '{"vision_heads": 4, "text_heads": 2}'})
        return at / "x.safetensors"
    write_transformers(at, state, config)
    (at / "vocab.json").write_text(json.dumps(vocabulary))
    return at


def without(at, name):
    (at / name).unlink()
    return at


def biomed(at):
    write_open_clip(at, STATE, SMALL.config)
    (at / "open_clip_config.json").write_text(json.dumps({"model_cfg": BIOMED}))
    return at


def escaping(at):
    shard(write_transformers(at, STATE, SMALL.config))
    (at / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../x.safetensors"}}))
    return at


WORKS = "Choose another backbone: OpenAI's models; ViT-B-32"
REFUSED = {
    "SigLIP of transformers": (
        lambda at: other_config(at, model_type="siglip"),
        f"config.json: expected model_type clip, got 'siglip' .SigLIP: other towers.*{WORKS}",
    ),
    "another kind of transformers": (
        lambda at: other_config(at, model_type="bert"),
        "config.json: expected model_type clip, got 'bert'. Choose",
    ),
    "SigLIP of open_clip": (lambda at: "ViT-B-16-SigLIP", f"text tower that is not causal, .* a sigmoid head.*{WORKS}"),
    "EVA02": (lambda at: "EVA02-B-16/merged2b_s8b_b131k", f"an image tower of timm; it differs in .*{WORKS}"),
    "BiomedCLIP": (biomed, f"open_clip_config.json: .* an image tower of timm, a text tower of transformers.*{WORKS}"),
    "SigLIP's tensors": (
        lambda at: saved(at, SIGLIP_STATE),
        f"weights.pt: expected the two towers of OpenAI's models, got an image tower of timm.*{WORKS}",
    ),
    "an image tower": (
        lambda at: saved(at, {k: v for k, v in STATE.items() if k.startswith("visual.")}),
        "got no text tower. Choose",
    ),
    "fewer tokens": (
        lambda at: other_vocabulary(at, 30000),
        "x.safetensors: expected a token embedding of 49408 rows, .*, got 30000, and there is no vocab.json. Texts",
    ),
    "other tokens": (
        lambda at: other_vocabulary(at, 50000, {"a": 0}),
        "expected a token embedding of 49408 rows, .*, got 50000, and vocab.json lists other tokens. Texts",
    ),
    "some rows without their seed": (
        lambda at: saved(
            at,
            STATE | {"token_embedding.weight": torch.ones(9, 16), "token_embedding.rows": torch.arange(9)},
        ),
        "vocab_size 9 instead of 49408",
    ),
    "transformers' names alone": (
        lambda at: (
            without(renamed(write_transformers(at, STATE, SMALL.config)).parent, "config.json") / "my.safetensors"
        ),
        "safetensors: expected config.json next to it, .* Give the whole folder",
    ),
    "a folder without weights": (
        lambda at: without(write_transformers(at, STATE, SMALL.config), "model.safetensors"),
        "expected model.safetensors or pytorch_model.bin next to the configuration, got neither. Download it too",
    ),
    "a folder without a configuration": (
        lambda at: without(write_transformers(at, STATE, SMALL.config), "config.json"),
        "expected open_clip_config.json .* or config.json .* and weights, got neither",
    ),
    "a missing part": (
        lambda at: without(shard(write_transformers(at, STATE, SMALL.config)), "model-00002-of-00002.safetensors"),
        "index.json: expected model-00002-of-00002.safetensors next to it, got nothing",
    ),
    "a part elsewhere": (escaping, "index.json: expected weight_map with names of files, got something else"),
    "two activations": (
        lambda at: other_config(at, text_config={"hidden_act": "gelu"}),
        "expected one hidden_act for both towers, got 'gelu' and 'quick_gelu'",
    ),
    "another activation": (
        lambda at: write_transformers(at, STATE, replace(SMALL.config, activation="gelu_new")),
        "expected the sizes of a CLIP, got activation 'gelu_new' .known: quick_gelu, gelu.",
    ),
    "another number of layers": (
        lambda at: write_transformers(at, STATE, replace(SMALL.config, text_layers=10**9)),
        "expected the sizes of .*, got text_layers 2 instead of 1000000000",
    ),
    "damaged sizes": (
        lambda at: write_transformers(at, STATE, replace(SMALL.config, text_width="x")),
        "expected the sizes of a CLIP, got text_width 'x'",
    ),
    "several CLIPs": (
        lambda at: saved(at, prefixed("student.") | prefixed("teacher.")),
        "weights.pt: expected one CLIP, got several, under student., teacher.",
    ),
    "a name without its prefix": (
        lambda at: "openai/clip-vit-base-patch16",
        "If it is a model on the Hugging Face Hub, write hf-hub:openai/clip-vit-base-patch16",
    ),
    "a misspelled tag": (lambda at: "ViT-B-16/laion2b_s34b_b88", "Did you mean 'laion2b_s34b_b88k'"),
    "a misspelled model": (lambda at: "ViT-B-61/openai", "Did you mean 'ViT-B-16/openai'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(kind, tmp_path, monkeypatch):
    make, message = REFUSED[kind]
    with pytest.raises(UserError, match=message) as error:
        clip.load_clip(str(make(tmp_path / "model")))
    assert "\n" not in str(error.value)


def test_a_file_that_does_not_say_its_gelu_is_read_as_openais_with_a_note(tmp_path, capsys):
    with torch.device("meta"):
        config = replace(SMALL.config, vision_width=64, vision_heads=1, text_width=64, text_heads=1, text_layers=1)
        shapes = clip.CLIP(config).state_dict()
    torch.save({k: torch.zeros(v.shape) for k, v in shapes.items()}, tmp_path / "x.pt")
    assert clip.load_clip(str(tmp_path / "x.pt")).config == config
    assert "x.pt does not say which GELU it was trained with" in capsys.readouterr().err


def test_the_vocabulary_has_clips_size():
    assert clip.tokenizer.simple_tokenizer().vocab_size == sources.VOCABULARY
