"""The sizes of a CLIP, and how to read them from the shapes of its weights."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from basics import UserError

OPENAI_HEAD_WIDTH = 64  # width of an attention head in all of OpenAI's models; no shape of a tensor shows it
LAYER_NORM_EPS = 1e-5  # added to the variance in the norms of all of OpenAI's models
RESNET_STRIDE = 32  # pixels per cell of the last feature map
RESNET_EXPANSION = 32  # width of the last feature map, in widths of the first stage


@dataclass(frozen=True)
class CLIPConfig:
    """All sizes of a CLIP with a ViT. The widths are those of a token, the sizes of an image are in pixels."""

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    embed_dim: int
    context_length: int
    vocab_size: int
    activation: str = "quick_gelu"  # or "gelu"
    layer_norm_eps: float = LAYER_NORM_EPS


@dataclass(frozen=True)
class ResNetConfig:
    """All sizes of a CLIP with a ResNet; those of the text tower as in `CLIPConfig`.

    Attributes:
        vision_width: channels of the first stage.
        vision_blocks: blocks of each of the four stages.
        vision_heads: heads of the attention that pools the last feature map.
    """

    image_size: int
    vision_width: int
    vision_blocks: tuple[int, ...]
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    embed_dim: int
    context_length: int
    vocab_size: int
    activation: str = "quick_gelu"  # of the text tower: a ResNet has ReLUs
    layer_norm_eps: float = LAYER_NORM_EPS

    def __getattr__(self, name: str):
        if name in ("patch_size", "vision_layers"):
            raise NoImageTokens(name)
        raise AttributeError(name)


class NoImageTokens(UserError, AttributeError):
    """A ResNet has no image tokens. Also an AttributeError, so that `hasattr` returns False."""

    def __init__(self, name: str):
        super().__init__(
            f"MODEL.BACKBONE.NAME: expected a ViT, such as ViT-B/16, for a method with image prompts, got a ResNet, "
            f"which has no image tokens ({name!r} was requested). Choose a ViT, or a method without image prompts."
        )


BackboneConfig = CLIPConfig | ResNetConfig
NOT_SHOWN = ("vision_heads", "text_heads", "activation", "layer_norm_eps")  # what no shape of a tensor shows


def check_config(config: BackboneConfig, source: Path | str) -> None:
    """Refuse sizes that cannot be those of a CLIP.

    Raises:
        UserError: names them.
    """
    if wrong := _errors(config):
        raise UserError(f"{source}: expected the sizes of a CLIP, got {', '.join(wrong)}. Give a CLIP's weights.")


def infer_config(state: dict[str, Tensor], metadata: dict[str, str], source: Path | str) -> BackboneConfig:
    """Read the sizes from the shapes; the heads and the activation from the metadata, else as in OpenAI's models.

    Args:
        source: the name of the weights in messages.

    Raises:
        UserError: tensors are missing, or the sizes cannot be those of a CLIP.
    """
    try:
        known = dict(json.loads(metadata.get("sizes", "{}")))
        config = _read_shapes(state, known)
    except (KeyError, IndexError) as error:
        raise UserError(
            f"{source}: expected a CLIP with OpenAI's parameter names, but {error} is missing. Give a CLIP's weights."
        ) from error
    except (TypeError, ValueError) as error:  # the metadata are not trusted
        raise UserError(f"{source}: damaged metadata ({error}). Download or create the file again.") from error
    check_config(config, source)
    return config


def _read_shapes(state: dict[str, Tensor], known: dict) -> BackboneConfig:
    text_width = state["ln_final.weight"].shape[0]
    text = dict(
        text_width=text_width,
        text_layers=_count(state, r"transformer\.resblocks\.(\d+)\."),
        text_heads=known.get("text_heads", text_width // OPENAI_HEAD_WIDTH),
        embed_dim=state["text_projection"].shape[1],
        context_length=state["positional_embedding"].shape[0],
        vocab_size=state["token_embedding.weight"].shape[0],
        activation=known.get("activation", "quick_gelu"),
        layer_norm_eps=known.get("layer_norm_eps", LAYER_NORM_EPS),
    )
    if "visual.layer1.0.conv1.weight" in state:
        width = state["visual.layer1.0.conv1.weight"].shape[0]
        return ResNetConfig(
            image_size=_grid(state["visual.attnpool.positional_embedding"]) * RESNET_STRIDE,
            vision_width=width,
            vision_blocks=tuple(_count(state, rf"visual\.layer{stage}\.(\d+)\.") for stage in range(1, 5)),
            vision_heads=known.get("vision_heads", RESNET_EXPANSION * width // OPENAI_HEAD_WIDTH),
            **text,
        )
    width, patch = state["visual.conv1.weight"].shape[0], state["visual.conv1.weight"].shape[-1]
    return CLIPConfig(
        image_size=_grid(state["visual.positional_embedding"]) * patch,
        patch_size=patch,
        vision_width=width,
        vision_layers=_count(state, r"visual\.transformer\.resblocks\.(\d+)\."),
        vision_heads=known.get("vision_heads", width // OPENAI_HEAD_WIDTH),
        **text,
    )


def _errors(config: BackboneConfig) -> list[str]:
    """List sizes that are not positive whole numbers, and heads that do not divide a width."""
    numbers = {k: v for k, v in vars(config).items() if k not in ("vision_blocks", "activation", "layer_norm_eps")}
    wrong = [f"{k} {v!r}" for k, v in numbers.items() if type(v) is not int or v < 1]
    if not wrong and config.text_width % config.text_heads:
        wrong.append(f"{config.text_heads} heads for a text width of {config.text_width}")
    if not wrong and isinstance(config, CLIPConfig) and config.vision_width % config.vision_heads:
        wrong.append(f"{config.vision_heads} heads for an image width of {config.vision_width}")
    if config.activation not in ("quick_gelu", "gelu"):
        wrong.append(f"activation {config.activation!r} (known: quick_gelu, gelu)")
    if type(config.layer_norm_eps) not in (int, float) or not 0 < config.layer_norm_eps < 1:
        wrong.append(f"layer_norm_eps {config.layer_norm_eps!r}")
    return wrong


def _count(state: dict[str, Tensor], pattern: str) -> int:
    """Return the number of layers whose parameters match a pattern with the layer's number in it."""
    return len({m.group(1) for k in state if (m := re.match(pattern, k))})


def _grid(positions: Tensor) -> int:
    """Return the number of cells per side, from the positions (1 + cells, width) of an image tower."""
    return round((positions.shape[0] - 1) ** 0.5)


def check_size(images: Tensor, size: int) -> None:
    """Raise UserError for images (B, 3, H, W) that are not `size` pixels high and wide."""
    if tuple(images.shape[-2:]) != (size, size):
        raise UserError(
            f"INPUT.SIZE: expected {size} x {size} pixels, as the backbone does, got {images.shape[-2]} x "
            f'{images.shape[-1]}. Set INPUT.SIZE "({size}, {size})".'
        )
