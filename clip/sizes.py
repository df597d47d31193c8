"""The sizes of a CLIP, read off the shapes of its weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from basics import UserError

from .towers import CLIPConfig

if TYPE_CHECKING:
    from .resnet import ResNetConfig

OPENAI_HEAD_WIDTH = 64  # width of one attention head in all of OpenAI's models; no shape in the weights tells it


def infer_config(state: dict[str, Tensor], metadata: dict[str, str], path: Path) -> CLIPConfig | ResNetConfig:
    """All sizes, read off the shapes; heads and activation off the metadata, else as in OpenAI's models.

    Raises:
        UserError: tensors are missing, or the sizes are none that a CLIP could have.
    """
    try:
        known = dict(json.loads(metadata.get("sizes", "{}")))
        return _sound(_read_off(state, known), path)
    except (KeyError, IndexError) as error:
        raise UserError(f"{path} does not hold a CLIP under OpenAI's parameter names: {error} is missing") from error
    except (TypeError, ValueError) as error:  # metadata is what somebody wrote
        raise UserError(f"{path} says nothing of its sizes that could be read: {error}; make it again") from error


def _read_off(state: dict[str, Tensor], known: dict) -> CLIPConfig | ResNetConfig:
    text_width = state["ln_final.weight"].shape[0]
    text = dict(
        text_width=text_width,
        text_layers=_layers(state, r"transformer\.resblocks\.(\d+)\."),
        text_heads=known.get("text_heads", text_width // OPENAI_HEAD_WIDTH),
        embed_dim=state["text_projection"].shape[1],
        context_length=state["positional_embedding"].shape[0],
        vocab_size=state["token_embedding.weight"].shape[0],
        activation=known.get("activation", "quick_gelu"),
    )
    if "visual.layer1.0.conv1.weight" in state:
        return _resnet_sizes(state, known, text)
    conv = state["visual.conv1.weight"]
    vision_width, patch = conv.shape[0], conv.shape[-1]
    return CLIPConfig(
        image_size=_grid(state["visual.positional_embedding"]) * patch,
        patch_size=patch,
        vision_width=vision_width,
        vision_layers=_layers(state, r"visual\.transformer\.resblocks\.(\d+)\."),
        vision_heads=known.get("vision_heads", vision_width // OPENAI_HEAD_WIDTH),
        **text,
    )


def _sound(sizes: CLIPConfig | ResNetConfig, path: Path) -> CLIPConfig | ResNetConfig:
    """The sizes themselves, unless heads do not divide a width, or something is no positive number."""
    numbers = {k: v for k, v in vars(sizes).items() if k not in ("activation", "vision_blocks")}
    wrong = [f"{k} {v!r}" for k, v in numbers.items() if type(v) is not int or v < 1]
    if not wrong and sizes.text_width % sizes.text_heads:
        wrong.append(f"{sizes.text_heads} heads for a text width of {sizes.text_width}")
    if not wrong and isinstance(sizes, CLIPConfig) and sizes.vision_width % sizes.vision_heads:
        wrong.append(f"{sizes.vision_heads} heads for an image width of {sizes.vision_width}")
    if sizes.activation not in ("quick_gelu", "gelu"):
        wrong.append(f"activation {sizes.activation!r}")
    if wrong:
        raise UserError(f"{path} does not hold a CLIP: its sizes make no sense: {', '.join(wrong)}")
    return sizes


def _layers(state: dict[str, Tensor], pattern: str) -> int:
    return len({m.group(1) for k in state if (m := re.match(pattern, k))})


def _grid(positions: Tensor) -> int:
    """Cells on a side, from the positions (1 + cells, width) of an image tower."""
    return round((positions.shape[0] - 1) ** 0.5)


def _resnet_sizes(state: dict[str, Tensor], known: dict, text: dict) -> ResNetConfig:
    from .resnet import EXPANSION, STRIDE, ResNetConfig  # imports open_clip, which takes seconds

    width = state["visual.layer1.0.conv1.weight"].shape[0]
    return ResNetConfig(
        image_size=_grid(state["visual.attnpool.positional_embedding"]) * STRIDE,
        vision_width=width,
        vision_blocks=tuple(_layers(state, rf"visual\.layer{stage}\.(\d+)\.") for stage in range(1, 5)),
        vision_heads=known.get("vision_heads", EXPANSION * width // OPENAI_HEAD_WIDTH),
        **text,
    )
