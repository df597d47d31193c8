"""CLIP as Hugging Face's transformers saves it: its names of tensors, and its config.json."""

from __future__ import annotations

import torch
from torch import Tensor

from basics import UserError

from .config import CLIPConfig
from .layouts import WHAT_WORKS
from .tokenizer import VOCABULARY

CONFIG = "config.json"
PIXELS = ("preprocessor_config.json", "processor_config.json")  # the second one in newer versions
WEIGHTS = {".safetensors": "model.safetensors", ".bin": "pytorch_model.bin"}
INDEX = ".index.json"  # after either name: which tensor is in which of several files

# Beginnings of the names of the towers' tensors, there and here.
TOWERS = {"text_model.": "", "vision_model.": "visual."}
# Parts of the rest of such a name, there and here.
PARTS = {
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding": "conv1",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "self_attn": "attn",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
QUERIES_KEYS_VALUES = ("q_proj", "k_proj", "v_proj")  # one tensor here
PROJECTIONS = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}  # transposed
NOT_WEIGHTS = ".position_ids"  # 0, 1, 2, ... in files of older versions

# Values that config.json may leave out: transformers' defaults.
TEXT = {
    **{"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "max_position_embeddings": 77},
    **{"vocab_size": VOCABULARY, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}
VISION = {
    **{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224, "patch_size": 32},
    **{"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}
EMBED_DIM = 512
OTHER_TYPES = {
    **dict.fromkeys(
        ("siglip", "siglip2"), "SigLIP: other towers and another vocabulary, and a sigmoid for each pair, not a softmax"
    ),
    "metaclip_2": "MetaCLIP 2, whose vocabulary is another one",
    "clip_text_model": "a text tower alone",
    "clip_vision_model": "an image tower alone",
}


def recognizes(names: dict[str, Tensor]) -> bool:
    """Return whether tensors have transformers' names."""
    return any(name.startswith(tuple(TOWERS)) for name in names)


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by OpenAI's names. A tensor that OpenAI's models do not have keeps its name."""
    renamed = {}
    for name, tensor in state.items():
        if name in PROJECTIONS and tensor.dim() == 2:
            renamed[PROJECTIONS[name]] = tensor.t().contiguous()
        elif not name.endswith(NOT_WEIGHTS):
            renamed[_rename(name)] = tensor
    for name in list(renamed):
        if ".attn.q_proj." in name:
            parts = [name.replace("q_proj", part) for part in QUERIES_KEYS_VALUES]
            tensors = [renamed.get(part) for part in parts]
            if all(t is not None and t.shape == renamed[name].shape and t.dim() for t in tensors):
                renamed[name.replace("q_proj.", "in_proj_")] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def _rename(name: str) -> str:
    for tower, ours in TOWERS.items():
        if name.startswith(tower):
            name = name.removeprefix(tower)
            for part, replacement in PARTS.items():
                name = name.replace(part, replacement)
            return ours + name
    return name


def read_config(content: object, source: str) -> CLIPConfig:
    """Return the sizes in a config.json.

    Raises:
        UserError: it is that of another kind of model, or damaged.
    """
    if not isinstance(content, dict) or content.get("model_type") != "clip":
        found = content.get("model_type") if isinstance(content, dict) else None
        reason = OTHER_TYPES.get(found) if isinstance(found, str) else None
        raise UserError(
            f"{source}: expected model_type clip, got {found!r}{f' ({reason})' if reason else ''}. {WHAT_WORKS}"
        )
    text, vision = _section(content, "text", TEXT), _section(content, "vision", VISION)
    for key in ("hidden_act", "layer_norm_eps"):
        if text[key] != vision[key]:
            raise UserError(
                f"{source}: expected one {key} for both towers, got {text[key]!r} and {vision[key]!r}. {WHAT_WORKS}"
            )
    return CLIPConfig(
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        vision_width=vision["hidden_size"],
        vision_layers=vision["num_hidden_layers"],
        vision_heads=vision["num_attention_heads"],
        text_width=text["hidden_size"],
        text_layers=text["num_hidden_layers"],
        text_heads=text["num_attention_heads"],
        embed_dim=content.get("projection_dim", EMBED_DIM),
        context_length=text["max_position_embeddings"],
        vocab_size=text["vocab_size"],
        activation=text["hidden_act"],
        layer_norm_eps=text["layer_norm_eps"],
    )


def _section(content: dict, name: str, defaults: dict) -> dict:
    """Return the settings of a tower. Files of older versions may repeat them in a second section, which counts."""
    given = content.get(f"{name}_config_dict") or content.get(f"{name}_config")
    return defaults | given if isinstance(given, dict) else defaults
