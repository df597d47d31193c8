"""Backbones by OpenAI's and open_clip's names: where their weights are, and what sizes they have.

open_clip's names are MODEL/TAG, with one of its model configurations and one of its published weights for it, or
MODEL/FILE with a weights file. What the shapes of the weights do not show (heads, the kind of GELU) is in the
configuration. Only models with the layout of OpenAI's are accepted.
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

from basics import UserError, did_you_mean
from basics.hub import UNREACHABLE, cache_unless, hub_answers

from .config import RESNET_EXPANSION, BackboneConfig, CLIPConfig, ResNetConfig
from .layouts import WHAT_WORKS
from .tokenizer import VOCABULARY

PREFIX = "open_clip:"  # may be left out
CONFIG = "open_clip_config.json"  # of a folder with a model of open_clip
WEIGHTS = {".safetensors": "open_clip_model.safetensors", ".bin": "open_clip_pytorch_model.bin"}

# OpenAI's names for its models -> open_clip's.
OPENAI = {
    **{name: name for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")},
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}

# What our towers read of a configuration. The rest must equal open_clip's defaults, which are OpenAI's layout.
PARTS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
VISION = {"image_size", "patch_size", "width", "layers", "head_width"}
TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}
# What the other keys mean.
OTHER_KEYS = {
    "timm_model_name": "an image tower of timm",
    "hf_model_name": "a text tower of transformers",
    "no_causal_mask": "a text tower that is not causal",
    "vocab_size": "another vocabulary",
    "init_logit_bias": "a sigmoid head",
    "multimodal_cfg": "a decoder",
}


def knows(name: str) -> bool:
    """Return whether a name without `open_clip:` begins with one of open_clip's models."""
    import open_clip  # takes seconds

    return name.partition("/")[0] in open_clip.list_models()


def look_up(name: str) -> tuple[dict, dict, Path, BackboneConfig]:
    """Look up a model and its weights. Load nothing.

    Args:
        name: `open_clip:MODEL/TAG` or `open_clip:MODEL/FILE`; the prefix may be left out.

    Returns:
        open_clip's configuration of the model, its entry for the weights (empty for a file), the file otherwise, and
        the sizes.

    Raises:
        UserError: unknown model or tag, or a model with another layout.
    """
    import open_clip  # takes seconds
    from open_clip.pretrained import get_pretrained_cfg

    prefix = PREFIX if name.startswith(PREFIX) else ""
    model, _, tag = name.removeprefix(PREFIX).partition("/")
    if model not in open_clip.list_models():
        raise UserError(
            f"{name}: expected {PREFIX}MODEL/TAG with a model in open_clip.list_models(), such as ViT-B-16, got "
            f"{model!r}.{did_you_mean(model, open_clip.list_models(), count=3)}"
        )
    config = open_clip.get_model_config(model)
    published, file = get_pretrained_cfg(model, tag), Path(os.path.expanduser(tag))
    # Published weights state which GELU they were trained with; the name of the model may say otherwise.
    quick = (published or config).get("quick_gelu", False)
    sizes = config_from_open_clip(config, "quick_gelu" if quick else "gelu", name)
    if not published and not os.path.isfile(file):
        tags = open_clip.list_pretrained_tags_by_model(model)
        hint = did_you_mean(tag, tags, count=3) if tag else did_you_mean(model, OPENAI)
        raise UserError(
            f"{name}: expected {prefix}{model}/TAG with one of {', '.join(tags) or 'no published weights'}, or "
            f"{prefix}{model}/FILE with an existing weights file, got {tag!r}.{hint}"
        )
    return {**config, "quick_gelu": quick}, published, file, sizes


def fetch(name: str, published: dict) -> Path:
    """Return the file of published weights, downloaded by open_clip if necessary.

    Raises:
        UserError: no network and nothing cached.
    """
    from open_clip.pretrained import download_pretrained

    answers = not published["hf_hub"] or hub_answers()
    try:
        with cache_unless(answers):
            return Path(download_pretrained(published))
    except (OSError, RuntimeError) as error:
        source, reason = published["hf_hub"] or published["url"], str(error).rstrip(".") if answers else UNREACHABLE
        raise UserError(
            f"{name}: expected its weights from {source} or in open_clip's cache, got: {reason}. Download the file "
            f"elsewhere and name it as {name.partition('/')[0]}/FILE."
        ) from error


def openai_config(name: str) -> BackboneConfig:
    """Return the sizes of one of OpenAI's models."""
    from open_clip import get_model_config  # takes seconds

    return config_from_open_clip(get_model_config(OPENAI[name]), "quick_gelu", name)


def fetch_openai(name: str) -> Path:
    """Fetch OpenAI's archive into open_clip's cache; verify its SHA-256 now and at each later use.

    Raises:
        UserError: no network and nothing cached.
    """
    from open_clip.pretrained import download_pretrained_from_url, get_pretrained_url  # takes seconds

    url = get_pretrained_url(OPENAI[name], "openai")
    try:
        return Path(download_pretrained_from_url(url))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{name}: expected its weights from {url} or in ~/.cache/clip, got: {error}. Download the file elsewhere "
            f"into ~/.cache/clip, or give its path as MODEL.BACKBONE.NAME."
        ) from error


def published_hashes() -> set[str]:
    """Return the SHA-256 of OpenAI's archives, which are part of their URLs."""
    from open_clip.pretrained import get_pretrained_url

    return {get_pretrained_url(model, "openai").split("/")[-2] for model in OPENAI.values()}


def read_config(content: object, source: str) -> BackboneConfig:
    """Return the sizes in an open_clip_config.json.

    Raises:
        UserError: it is that of a model with another layout, or damaged.
    """
    config = content.get("model_cfg") if isinstance(content, dict) else None
    parts = [config.get(part) for part in ("vision_cfg", "text_cfg")] if isinstance(config, dict) else [None]
    if not isinstance(config, dict) or not all(isinstance(part, dict) for part in parts):
        raise UserError(f"{source}: expected model_cfg with vision_cfg and text_cfg, got neither. Download it again.")
    try:
        return config_from_open_clip(config, "quick_gelu" if config.get("quick_gelu") else "gelu", source)
    except (KeyError, TypeError, ArithmeticError) as error:
        raise UserError(f"{source}: expected the sizes of a model, got {error!r}. Download it again.") from error


def config_from_open_clip(config: dict, activation: str, name: str) -> CLIPConfig | ResNetConfig:
    """Return the sizes in a model configuration of open_clip.

    Raises:
        UserError: the model has another layout than OpenAI's. The message names the differences.
    """
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    parts = {"vision_cfg": (CLIPVisionCfg, VISION), "text_cfg": (CLIPTextCfg, TEXT)}
    differs = [key for key in config if key not in PARTS]
    for part, (defaults, supported) in parts.items():
        usual = {field.name: field.default for field in fields(defaults)}
        differs += [
            f"{part}.{key} {value!r}"
            for key, value in config[part].items()
            if key not in supported and value != usual.get(key)
        ]
    if (size := config["text_cfg"].get("vocab_size", VOCABULARY)) != VOCABULARY:
        differs.append(f"text_cfg.vocab_size {size}")
    if not isinstance(size := config["vision_cfg"].get("image_size", 0), int):
        differs.append(f"vision_cfg.image_size {size}")
    if differs:
        meant = [words for key, words in OTHER_KEYS.items() if any(key in each for each in differs)]
        has = f"it has {', '.join(meant)}; " if meant else ""
        raise UserError(
            f"{name}: expected the layout of OpenAI's models (a ViT or a ResNet, and their text tower), but "
            f"{has}it differs in {' '.join(', '.join(differs).split())}. {WHAT_WORKS}"  # on one line
        )
    vision, text = (vars(defaults(**config[part])) for part, (defaults, _) in parts.items())
    common: dict = dict(
        image_size=vision["image_size"],
        vision_width=vision["width"],
        text_width=text["width"],
        text_layers=text["layers"],
        text_heads=text["heads"],
        embed_dim=config["embed_dim"],
        context_length=text["context_length"],
        vocab_size=text["vocab_size"],
        activation=activation,
    )
    if isinstance(vision["layers"], int):
        return CLIPConfig(
            patch_size=vision["patch_size"],
            vision_layers=vision["layers"],
            vision_heads=vision["width"] // vision["head_width"],
            **common,
        )
    return ResNetConfig(
        vision_blocks=tuple(vision["layers"]),
        vision_heads=RESNET_EXPANSION * vision["width"] // vision["head_width"],
        **common,
    )
