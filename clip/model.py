"""Compatibility: CLIP with the names and calls of OpenAI's model.py, and of the CoOp family's modified copies of it.

For trainer files written for those; nothing else in this project uses it. The computation is in `clip.towers`. Such
files call, with tokens x (L, N, width), images (B, 3, H, W), and n prompts of a layer (n, width):

    transformer(x)                      as in OpenAI's code
    transformer(x, mask)                RPO: with an additive mask
    transformer([x, prompts, 0])        MaPLe: prompts replace the context before layers 1, 2, ...; returns a list
    visual(images), visual(images, prompts, later prompts)     CoOp, and MaPLe
    build_model(state_dict, {"trainer": "IVLP", ...})          prompts named VPT inside the towers
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from basics import UserError

from . import towers
from .attention import Attention, Segment
from .config import CLIPConfig, ResNetConfig, infer_config
from .towers import LayerNorm, QuickGELU, ResidualAttentionBlock, end_of_text
from .weights import NOT_WEIGHTS, add_counts

__all__ = [
    "CLIP",
    "LayerNorm",
    "QuickGELU",
    "ResidualAttentionBlock",
    "Transformer",
    "VisionTransformer",
    "build_model",
    "config_tensors",
    "convert_weights",
]

# Sizes that no shape in a state dict shows; they are added to it as numbers, like OpenAI's `input_resolution`.
HEADS = ("vision_heads", "text_heads")
EXACT_GELU, EPS = "exact_gelu", "layer_norm_eps"
OWN_CLIP = "This trainer file needs the clip/ of its own repository: put it next to trainers/."
PROMPTS_INSIDE = ("IVLP", "VPT")  # designs whose prompts are parameters of the towers


class Transformer(towers.Transformer):
    """The layers of one tower.

    Attributes:
        width, layers: its sizes.
    """

    def __init__(self, width: int, layers: int, heads: int, activation: str, causal: bool):
        super().__init__(width, layers, heads, activation, causal)
        self.width, self.layers = width, layers

    def forward(self, x: Any, mask: Any = None, before_layer: Any = None, adapters: Any = None) -> Any:
        """Run all layers.

        Args:
            x: segments, with the other arguments as in `clip.towers`; or tokens (L, N, width); or MaPLe's list of the
                tokens, the prompts of later layers, and the number of those that are used up.
            mask: added to the attention scores: (L, L), or (N * heads, L, L), equal for all heads of a sequence.

        Returns:
            Like x: a dict, tokens, or such a list.

        Raises:
            UserError: a list of another repository.
        """
        if isinstance(x, dict):
            return super().forward(x, mask, before_layer, adapters)
        if mask is not None:
            return self._masked(x.transpose(0, 1), mask).transpose(0, 1)
        if isinstance(x, Tensor):
            return self.replaced(x, self.prompts_inside())
        if len(x) != 3:
            raise UserError(
                f"transformer: expected tokens or MaPLe's [tokens, prompts of later layers, 0], got {len(x)} items. "
                f"{OWN_CLIP}"
            )
        tokens, deep, used = x
        return [self.replaced(tokens, deep[used:]), deep, len(deep)]

    def prompts_inside(self) -> list[Tensor]:
        """Return the prompts of layers 1, 2, ... that are parameters of this tower."""
        return [prompts for name, prompts in self.named_parameters() if name.endswith(".VPT_shallow")]

    def replaced(self, x: Tensor, deep: Sequence[Tensor]) -> Tensor:
        """Run all layers over x (L, N, width), with tokens replaced by prompts before layers 1, 2, ...

        Replaced are the last tokens of an image's sequence, or those after the first token of a text's.
        """

        def insert(depth: int, segments: dict[str, Segment]) -> None:
            if 0 < depth <= len(deep):
                tokens = segments["x"].tokens
                prompts = deep[depth - 1].to(tokens).expand(len(tokens), -1, -1)
                n = prompts.shape[1]
                parts = [tokens[:, :1], prompts, tokens[:, 1 + n :]] if self.causal else [tokens[:, :-n], prompts]
                segments["x"].tokens = torch.cat(parts, dim=1)

        segment = Segment(x.transpose(0, 1), attends_to=("x",))
        return super().forward({"x": segment}, before_layer=insert)["x"].transpose(0, 1)

    def _masked(self, x: Tensor, mask: Tensor) -> Tensor:
        mask = mask.to(x)
        if mask.dim() == 3:
            mask = mask.unflatten(0, (len(x), -1))[:, 0]
        for block in self.blocks:
            queries, kv = block.attn.queries_keys_values(block.ln_1(x))
            x = block.update(x, block.attn.attend(queries, kv, mask))
        return x


class VisionTransformer(towers.VisionTransformer):
    """The image tower.

    Attributes:
        output_dim: width of the shared embedding.
    """

    transformer: Transformer

    def __init__(self, config: CLIPConfig):
        super().__init__(config)
        self.output_dim = config.embed_dim
        self.transformer = Transformer(
            config.vision_width, config.vision_layers, config.vision_heads, config.activation, causal=False
        )

    def forward(self, images: Tensor, prompts: Tensor | None = None, deep: Sequence[Tensor] = ()) -> Tensor:
        """Return the CLS feature: images (B, 3, H, W) -> (B, D), not normalized.

        Args:
            prompts: (n, width), after the patches; None for the tower's own, if it has any.
            deep: their replacements before layers 1, 2, ....
        """
        own = dict(self.named_parameters(recurse=False)).get("VPT")
        if prompts is None:
            prompts, deep = own, self.transformer.prompts_inside()
        if prompts is None:
            return super().forward(images)
        x = self.embed(images)
        x = torch.cat([x, self.ln_pre(prompts.to(x).expand(len(x), -1, -1))], dim=1)
        return self.project(self.transformer.replaced(x.transpose(0, 1), deep)[0])


class CLIP(towers.CLIP):
    """CLIP whose parts can be called as the CoOp family's files call them."""

    transformer: Transformer

    def __init__(self, config: CLIPConfig | ResNetConfig):
        super().__init__(config)
        if isinstance(config, CLIPConfig):  # a ResNet is called as in OpenAI's code anyway
            self.visual = VisionTransformer(config)
        self.transformer = Transformer(
            config.text_width, config.text_layers, config.text_heads, config.activation, causal=True
        )
        self.set_eps()

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode texts by their end-of-text feature: (N, context length) int -> (N, D), not normalized."""
        # All positions, because prompts inside the tower may replace more of them than a short text has.
        x = self.token_embedding(tokens).to(self.dtype)
        x = self.transformer((x + self.positional_embedding.to(x)).transpose(0, 1))
        return self.project_text(x[end_of_text(tokens), torch.arange(len(tokens), device=x.device)])


def build_model(state_dict: dict[str, Tensor], design_details: dict | None = None) -> CLIP:
    """Create a CLIP with these weights in evaluation mode, in half precision like OpenAI's; `.float()` undoes that.

    Args:
        state_dict: with OpenAI's names. Heads are 64 wide, unless it contains `vision_heads` and `text_heads`.
        design_details: the prompts inside the towers, as in MaPLe's repository: `trainer`, `vision_depth`,
            `vision_ctx`, `language_depth`, `language_ctx`. None: no prompts.

    Raises:
        UserError: not the weights of a CLIP, or a design that this CLIP does not have.
    """
    state = {k: v for k, v in state_dict.items() if k not in NOT_WEIGHTS}
    known: dict[str, int | str | float] = {k: int(state.pop(k)) for k in HEADS if k in state}
    if EPS in state:
        known[EPS] = float(state.pop(EPS))
    if EXACT_GELU in state and int(state.pop(EXACT_GELU)):
        known["activation"] = "gelu"
    with torch.device("meta"):  # shapes only: skips the random initialization
        model = CLIP(infer_config(state, {"sizes": json.dumps(known)}, "build_model's state_dict"))
    add_counts(state, model.state_dict())
    try:  # copies: training the model must not change the caller's tensors
        copies = {k: v.to(torch.float32 if v.is_floating_point() else v.dtype, copy=True) for k, v in state.items()}
        model.load_state_dict(copies, assign=True)
    except RuntimeError as error:
        raise UserError(f"build_model's state_dict: expected the tensors of a CLIP. {error}") from error
    convert_weights(model)
    _add_prompts_inside(model, design_details or {})
    return model.eval()


def convert_weights(model: nn.Module) -> None:
    """Convert the weights of matrix products to half precision, in place, but not norms, embeddings and the scale."""
    for module in model.modules():
        multiplies = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | Attention | nn.MultiheadAttention)
        for name, parameter in module.named_parameters(recurse=False):
            if multiplies or name in ("text_projection", "proj"):
                parameter.data = parameter.data.half()


def config_tensors(config: CLIPConfig | ResNetConfig) -> dict[str, Tensor]:
    """Return entries for a state dict that give `build_model` the sizes that no shape of a tensor shows."""
    numbers = {key: torch.tensor(getattr(config, key)) for key in HEADS}
    numbers[EPS] = torch.tensor(config.layer_norm_eps, dtype=torch.float64)  # as exact as a Python number
    return {**numbers, EXACT_GELU: torch.tensor(int(config.activation == "gelu"))}


def _add_prompts_inside(model: CLIP, design: dict) -> None:
    """Register the prompts of IVLP and VPT: the first image prompts as `visual.VPT`, later ones of both towers as
    `VPT_shallow` of their layers. The first text prompts belong to the trainer."""
    depths = {side: design.get(f"{side}_depth", 0) for side in ("vision", "language")}
    if not any(depths.values()):
        return
    if design.get("trainer") not in PROMPTS_INSIDE:
        raise UserError(
            f"design_details: expected trainer {' or '.join(PROMPTS_INSIDE)}, or depths of 0, got trainer "
            f"{design.get('trainer')!r}. {OWN_CLIP}"
        )
    for side, depth in depths.items():
        length = design.get(f"{side}_ctx")
        if depth and not (type(length) is int and length > 0):
            raise UserError(
                f"design_details: expected {side}_ctx as a whole number from 1, got {length!r}. It is the number of "
                f"prompts of each of the first {depth} layers."
            )
    for side, transformer in (("vision", model.visual.transformer), ("language", model.transformer)):
        width = transformer.blocks[0].ln_1.normalized_shape[0]
        for depth, block in enumerate(transformer.blocks[: depths[side]]):
            if depth or side == "vision":
                owner, name = (block, "VPT_shallow") if depth else (model.visual, "VPT")
                owner.register_parameter(name, nn.Parameter(0.02 * torch.randn(design[f"{side}_ctx"], width)))
