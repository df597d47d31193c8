"""A trained model without its dataset and its run: what describes it (model.json), and how it is built from that.

A description holds no code, and what it names is checked: a registered method, keys of the config, a backbone by the
SHA-256 of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from yacs.config import CfgNode

from basics import UserError, read_json
from clip import CLIP, load_clip
from dassl.config import flatten, merge, to_dict
from dassl.engine import TRAINER_REGISTRY
from trainers.prompted import PromptedCLIP

if TYPE_CHECKING:
    from trainers.base import PromptTrainer

FORMAT = 1
DESCRIBED = (
    "DATASET.NAME",
    "DATASET.KEEP_UNDERSCORES",
    "INPUT.SIZE",
    "INPUT.INTERPOLATION",
    "INPUT.TRANSFORMS",
    "INPUT.PIXEL_MEAN",
    "INPUT.PIXEL_STD",
    "INPUT.MAX_MEGAPIXELS",
    "MODEL.BACKBONE.NAME",
)


def describe(trainer: PromptTrainer) -> dict[str, Any]:
    """Describe the model of a trainer: the content of model.json.

    Returns:
        {"format", "method", "checkpoint": the name of its checkpoint folder, "classnames", "template": the text of a
        class with {} for its name, "class_texts": {class name: texts} or None, "weights_sha256": of the backbone,
        "settings": {dotted key: value}}.
    """
    cfg, node = trainer.cfg, f"TRAINER.{trainer.config_node}."
    settings = flatten(to_dict(cfg))
    return {
        "format": FORMAT,
        "method": cfg.TRAINER.NAME,
        "checkpoint": trainer.checkpoint_name,
        "classnames": list(trainer.dm.dataset.classnames),
        "template": trainer.template(),
        "class_texts": trainer.given_texts(),
        "weights_sha256": trainer.weights_sha256,
        "settings": {key: value for key, value in settings.items() if key in DESCRIBED or (key + ".").startswith(node)},
    }


def described_classes(directory: str | Path | None) -> list[str] | None:
    """Return the class names that the model of a run was trained on; None without a description."""
    file = Path(directory or "") / "model.json"
    return read_json(file).get("classnames") if file.is_file() else None


def build_trainer_for_inference(
    cfg: CfgNode, description: Mapping[str, Any], overrides: Mapping[str, Any]
) -> PromptTrainer:
    """Create the trainer of a described model without data, optimizer, or output folder: it can only build its method.

    Args:
        cfg: the default config with the keys of all methods; it gets the model's settings.
        description: as `describe` returns it.
        overrides: settings that replace described ones, {dotted key: value}.

    Raises:
        UserError: the method or a key is unknown, or a value is out of range.
    """
    method = description["method"]
    known = TRAINER_REGISTRY.registered_names()
    if method not in known:
        raise UserError(
            f"method: expected one of {', '.join(known)}, got {method!r}. Add the file of that method to trainers/."
        )
    settings = {"VERBOSE": False, "TRAINER.NAME": method, "DATASET.PROMPT": description["template"]}
    settings |= {**description["settings"], **overrides}
    merge(cfg, opts=[word for pair in settings.items() for word in pair])
    trainer = object.__new__(TRAINER_REGISTRY.get(method))
    trainer.check_cfg(cfg)
    trainer.given_texts = lambda: description["class_texts"]
    trainer.trained_on = trainer.names_in_texts(description["classnames"])
    return trainer


def load_described_backbone(trainer: PromptTrainer, weights_sha256: str, device: torch.device) -> CLIP:
    """Load the backbone onto a device.

    Raises:
        UserError: its weights are not those that the model was trained on.
    """
    name = trainer.cfg.MODEL.BACKBONE.NAME
    clip_model = load_clip(name, trainer.tower_dtype)
    if clip_model.weights_sha256 != weights_sha256:
        raise UserError(
            f"{name}: expected the backbone that the model was trained on (SHA-256 {weights_sha256[:12]}...), got "
            f"another (SHA-256 {clip_model.weights_sha256[:12]}...). Give its weights as `backbone`."
        )
    return clip_model.to(device)


def build_described_method(trainer: PromptTrainer, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
    """Build the method on a backbone for some classes, untrained and in evaluation mode."""
    names = trainer.names_in_texts(classnames)
    trainer.check_context(names, clip_model.context_length)
    return trainer.build_method(clip_model, names).to(clip_model.logit_scale.device).eval()
