"""Backbones by open_clip's names, `open_clip:MODEL/TAG`: where their weights are, and what sizes they have.

MODEL is one of open_clip's model configurations, and TAG one of its published weights for it, or a weights file. What
the shapes of the weights do not show (heads, the kind of GELU) is in the configuration. Only models with the layout of
OpenAI's are accepted.
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

from basics import UserError, did_you_mean, notify

from .config import RESNET_EXPANSION, CLIPConfig, ResNetConfig
from .tokenizer import simple_tokenizer

PREFIX = "open_clip:"

# What our towers read of a configuration. The rest must equal open_clip's defaults, which are OpenAI's layout.
PARTS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
VISION = {"image_size", "patch_size", "width", "layers", "head_width"}
TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}


def look_up(name: str) -> tuple[dict, Path, CLIPConfig | ResNetConfig]:
    """Return open_clip's entry for weights (empty for a file), the file otherwise, and the sizes. Load nothing.

    Args:
        name: `open_clip:MODEL/TAG` or `open_clip:MODEL/FILE`.

    Raises:
        UserError: unknown model or tag, or a model with another layout.
    """
    import open_clip  # takes seconds
    from open_clip.pretrained import get_pretrained_cfg

    model, _, tag = name.removeprefix(PREFIX).partition("/")
    if model not in open_clip.list_models():
        raise UserError(
            f"{name}: expected {PREFIX}MODEL/TAG with a model in open_clip.list_models(), such as ViT-B-16, got "
            f"{model!r}.{did_you_mean(model, open_clip.list_models(), count=3)}"
        )
    published, file = get_pretrained_cfg(model, tag), Path(os.path.expanduser(tag))
    if not published and not os.path.isfile(file):
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise UserError(
            f"{name}: expected {PREFIX}{model}/TAG with one of {', '.join(tags) or 'no published weights'}, or "
            f"{PREFIX}{model}/FILE with an existing weights file, got {tag!r}.{did_you_mean(tag, tags, count=3)}"
        )
    config = open_clip.get_model_config(model)
    # Published weights state which GELU they were trained with; the name of the model may say otherwise.
    quick = (published or config).get("quick_gelu", False)
    return published, file, config_from_open_clip(config, "quick_gelu" if quick else "gelu", name)


def locate(name: str) -> tuple[Path, CLIPConfig | ResNetConfig]:
    """Return the file of a backbone, downloaded by open_clip if necessary, and its sizes.

    Raises:
        UserError: as `look_up`; or no network and nothing cached.
    """
    import open_clip
    from open_clip.pretrained import download_pretrained

    published, file, config = look_up(name)
    if not published:
        return file, config
    if (published["mean"], published["std"]) != (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD):
        notify(
            f"{name} was not trained with the image statistics of OpenAI's models: set INPUT.PIXEL_MEAN to "
            f"{list(published['mean'])} and INPUT.PIXEL_STD to {list(published['std'])}"
        )
    try:
        return Path(download_pretrained(published)), config
    except (OSError, RuntimeError) as error:
        source, reason = published["hf_hub"] or published["url"], str(error).rstrip(".")
        raise UserError(
            f"{name}: expected its weights from {source} or in open_clip's cache, got: {reason}. Download the file "
            f"elsewhere and name it as {name.partition('/')[0]}/FILE."
        ) from error


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
    vision, text = (vars(defaults(**config[part])) for part, (defaults, _) in parts.items())
    if text["vocab_size"] != simple_tokenizer().vocab_size:
        differs.append(f"text_cfg.vocab_size {text['vocab_size']}")
    if not isinstance(vision["image_size"], int):
        differs.append(f"vision_cfg.image_size {vision['image_size']}")
    if differs:
        raise UserError(
            f"{name}: expected the layout of OpenAI's models (a ViT or a ResNet, and their text tower), but it "
            f"differs in {', '.join(differs)}. Choose another model."
        )
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
