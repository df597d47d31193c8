"""A small CLIP with random weights, for tests that need a backbone but no trained one."""

import json

import torch
from safetensors.torch import save_file

from clip import CLIP, CLIPConfig

SMALL_HEADS = (4, 2)  # vision, text


def make_small_clip(seed=0):
    """Make a frozen small CLIP in which every tensor differs from its usual initial value."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIP(CLIPConfig(24, 8, 32, 3, SMALL_HEADS[0], 16, 2, SMALL_HEADS[1], 64, 77, 49408))
        for value in model.parameters():
            value.data += 0.1 * torch.randn_like(value)
    return model.eval().requires_grad_(False)


def save_small_clip(path, sizes=True):
    """Save the small CLIP as a weights file, by default with the sizes that no shape of a tensor shows."""
    state = {k: v.contiguous() for k, v in make_small_clip().state_dict().items()}
    heads = json.dumps({"vision_heads": SMALL_HEADS[0], "text_heads": SMALL_HEADS[1]})
    save_file(state, path, metadata={"sizes": heads} if sizes else None)
    return path


def as_transformers(state):
    """Return the tensors of a CLIP by the names of Hugging Face's transformers."""
    renamed = {"logit_scale": state["logit_scale"]}
    renamed["visual_projection.weight"] = state["visual.proj"].t().contiguous()
    renamed["text_projection.weight"] = state["text_projection"].t().contiguous()
    for tower, ours in (("text_model", ""), ("vision_model", "visual.")):
        for part, name in (
            ("embeddings.token_embedding.weight", "token_embedding.weight"),
            ("embeddings.position_embedding.weight", "positional_embedding"),
            ("embeddings.class_embedding", "class_embedding"),
            ("embeddings.patch_embedding.weight", "conv1.weight"),
            *((f"pre_layrnorm.{kind}", f"ln_pre.{kind}") for kind in ("weight", "bias")),
            *((f"post_layernorm.{kind}", f"ln_post.{kind}") for kind in ("weight", "bias")),
            *((f"final_layer_norm.{kind}", f"ln_final.{kind}") for kind in ("weight", "bias")),
        ):
            if ours + name in state:
                renamed[f"{tower}.{part}"] = state[ours + name]
        depth = 0
        while f"{ours}transformer.resblocks.{depth}.ln_1.weight" in state:
            there, here = f"{tower}.encoder.layers.{depth}", f"{ours}transformer.resblocks.{depth}"
            for kind in ("weight", "bias"):
                parts = state[f"{here}.attn.in_proj_{kind}"].chunk(3)
                renamed |= {f"{there}.self_attn.{n}_proj.{kind}": x.clone() for n, x in zip("qkv", parts, strict=True)}
                for part, name in (
                    ("self_attn.out_proj", "attn.out_proj"),
                    ("layer_norm1", "ln_1"),
                    ("layer_norm2", "ln_2"),
                    ("mlp.fc1", "mlp.c_fc"),
                    ("mlp.fc2", "mlp.c_proj"),
                ):
                    renamed[f"{there}.{part}.{kind}"] = state[f"{here}.{name}.{kind}"]
            depth += 1
    return renamed


def transformers_config(config):
    """Return the config.json of transformers for these sizes."""
    shared = {"hidden_act": config.activation, "layer_norm_eps": config.layer_norm_eps}
    text = {
        "hidden_size": config.text_width,
        "num_hidden_layers": config.text_layers,
        "num_attention_heads": config.text_heads,
        "max_position_embeddings": config.context_length,
        "vocab_size": config.vocab_size,
    }
    vision = {
        "hidden_size": config.vision_width,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.vision_heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
    }
    sections = {"text_config": text | shared, "vision_config": vision | shared}
    return {"model_type": "clip", "projection_dim": config.embed_dim, **sections}


def open_clip_config(config):
    """Return the configuration of open_clip for these sizes."""
    return {
        "embed_dim": config.embed_dim,
        "quick_gelu": config.activation == "quick_gelu",
        "vision_cfg": {
            "image_size": config.image_size,
            "layers": config.vision_layers,
            "width": config.vision_width,
            "head_width": config.vision_width // config.vision_heads,
            "patch_size": config.patch_size,
        },
        "text_cfg": {
            "context_length": config.context_length,
            "vocab_size": config.vocab_size,
            "width": config.text_width,
            "heads": config.text_heads,
            "layers": config.text_layers,
        },
    }


def write_transformers(folder, state, config, **changes):
    """Write a model as transformers does, into a new folder, and return the folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(transformers_config(config) | changes))
    save_file(as_transformers(state), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_open_clip(folder, state, config, name="open_clip_model.safetensors"):
    """Write a model as open_clip does, into a new folder, and return the folder. `state`: what torch.save gets."""
    folder.mkdir(parents=True)
    content = {"model_cfg": open_clip_config(config), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    if name.endswith(".safetensors"):
        save_file(state, folder / name)
    else:
        torch.save(state, folder / name)
    return folder
