"""CLIP under the names and calls of OpenAI's model.py, and of the CoOp family's changed copies of it.

For trainer files written for those; the towers compute (`clip.towers`). What such files call, with tokens x (L, N,
width), images (B, 3, H, W) and n prompts of a layer (n, width):

    transformer(x)                      as in OpenAI's code
    transformer(x, mask)                RPO: an additive mask of its own
    transformer([x, prompts, 0])        MaPLe: prompts take the context's place before layers 1, 2, ...; a list back
    visual(images), visual(images, prompts, later prompts)     CoOp, and MaPLe
    build_model(state_dict, {"trainer": "IVLP", ...})          prompts named VPT inside the towers
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from basics import UserError

from . import towers
from .attention import Attention, Segment
from .sizes import infer_config
from .towers import CLIPConfig, LayerNorm, QuickGELU, ResidualAttentionBlock, end_of_text
from .weights import NOT_WEIGHTS, add_counts

__all__ = [
    "CLIP",
    "LayerNorm",
    "QuickGELU",
    "ResidualAttentionBlock",
    "Transformer",
    "VisionTransformer",
    "build_model",
    "convert_weights",
    "numbers_of",
]

# What no shape in a state dict tells stands in it as numbers, as OpenAI's archives keep `input_resolution`.
HEADS = ("vision_heads", "text_heads")
EXACT_GELU = "exact_gelu"
PROMPTS_INSIDE = ("IVLP", "VPT")  # designs whose prompts are parameters of the towers


class Transformer(towers.Transformer):
    """The layers of one tower.

    Attributes:
        width, layers: its sizes.
    """

    def __init__(self, width: int, layers: int, heads: int, activation: str, causal: bool):
        super().__init__(width, layers, heads, activation, causal)
        self.width, self.layers = width, layers

    def forward(self, x: Tensor | Sequence | dict, mask=None, before_layer=None) -> Tensor | list | dict:
        """All layers.

        Args:
            x: segments, with the other arguments as in `clip.towers`; or tokens (L, N, width); or MaPLe's list of the
                tokens, the later layers' prompts and how many are used up.
            mask: added to the attention scores: (L, L), or (N * heads, L, L) with all heads of a sequence alike.

        Returns:
            As x: tokens, or such a list.
        """
        if isinstance(x, dict):
            return super().forward(x, mask, before_layer)
        if mask is not None:
            return self._masked(x.transpose(0, 1), mask).transpose(0, 1)
        if isinstance(x, Tensor):
            return self.replaced(x, [b.VPT_shallow for b in self.resblocks if hasattr(b, "VPT_shallow")])
        if len(x) != 3:
            raise UserError(
                f"a transformer was called with a list of {len(x)}; expected tokens, or MaPLe's [tokens, prompts of "
                f"the later layers, 0]: the trainer file needs its own repository's clip/model.py"
            )
        tokens, deep, used = x
        return [self.replaced(tokens, deep[used:]), deep, len(deep)]

    def replaced(self, x: Tensor, deep: Sequence[Tensor]) -> Tensor:
        """All layers over x (L, N, width); prompts replace tokens before layers 1, 2, ...: the last ones of an image's
        sequence, those behind the first one of a text's."""

        def insert(depth: int, segments: dict[str, Segment]) -> None:
            if 0 < depth <= len(deep):
                tokens = segments["x"].tokens
                prompts = deep[depth - 1].to(tokens).expand(len(tokens), -1, -1)
                n = prompts.shape[1]
                parts = [tokens[:, :1], prompts, tokens[:, 1 + n :]] if self.causal else [tokens[:, :-n], prompts]
                segments["x"].tokens = torch.cat(parts, dim=1)

        return (
            super()
            .forward({"x": Segment(x.transpose(0, 1), attends_to=("x",))}, before_layer=insert)["x"]
            .transpose(0, 1)
        )

    def _masked(self, x: Tensor, mask: Tensor) -> Tensor:
        mask = mask.to(x)
        if mask.dim() == 3:
            mask = mask.unflatten(0, (len(x), -1))[:, 0]
        for block in self.resblocks:
            queries, kv = block.attn.project(block.ln_1(x), queries=True, keys_values=True)
            x = block.update(x, block.attn.attend(queries, kv, mask))
        return x


class VisionTransformer(towers.VisionTransformer):
    """The image tower.

    Attributes:
        output_dim: width of the shared embedding.
    """

    def __init__(self, sizes: CLIPConfig):
        super().__init__(sizes)
        self.output_dim = sizes.embed_dim
        self.transformer = Transformer(
            sizes.vision_width, sizes.vision_layers, sizes.vision_heads, sizes.activation, causal=False
        )

    def forward(self, images: Tensor, prompts: Tensor | None = None, deep: Sequence[Tensor] = ()) -> Tensor:
        """The CLS feature: images (B, 3, H, W) -> (B, D), not normalised.

        Args:
            prompts: (n, width), behind the patches; None: the tower's own, if it has any.
            deep: what takes their place before layers 1, 2, ....
        """
        if prompts is None:
            if not hasattr(self, "VPT"):
                return super().forward(images)
            prompts = self.VPT
            deep = [block.VPT_shallow for block in self.transformer.resblocks if hasattr(block, "VPT_shallow")]
        x = self.embed(images)
        x = torch.cat([x, self.ln_pre(prompts.to(x).expand(len(x), -1, -1))], dim=1)
        return self.project(self.transformer.replaced(x.transpose(0, 1), deep)[0])


class CLIP(towers.CLIP):
    """CLIP whose parts can be called as the CoOp family's files call them."""

    def __init__(self, sizes: CLIPConfig):
        super().__init__(sizes)
        if isinstance(sizes, CLIPConfig):  # else a ResNet, which is called as in OpenAI's code anyway
            self.visual = VisionTransformer(sizes)
        self.transformer = Transformer(
            sizes.text_width, sizes.text_layers, sizes.text_heads, sizes.activation, causal=True
        )

    def encode_text(self, tokens: Tensor) -> Tensor:
        """The end-of-text feature: (N, context length) int -> (N, D), not normalised."""
        # All positions, because prompts inside the tower may replace more of them than a short text has.
        x = self.token_embedding(tokens).to(self.dtype)
        x = self.transformer((x + self.positional_embedding.to(x)).transpose(0, 1))
        return self.project_text(x[end_of_text(tokens), torch.arange(len(tokens), device=x.device)])


def build_model(state_dict: dict[str, Tensor], design_details: dict | None = None) -> CLIP:
    """A CLIP of these weights in evaluation mode, in half precision as OpenAI's; `.float()` makes it float32.

    Args:
        state_dict: under OpenAI's names. Heads are 64 wide, unless it holds `vision_heads` and `text_heads`.
        design_details: what the file wants inside the towers, as in MaPLe's repository: `trainer`, `vision_depth`,
            `vision_ctx`, `language_depth`, `language_ctx`. None: nothing.

    Raises:
        UserError: not the weights of a CLIP, or a design that this CLIP does not have.
    """
    state = {k: v for k, v in state_dict.items() if k not in NOT_WEIGHTS}
    known = {k: int(state.pop(k)) for k in HEADS if k in state}
    if int(state.pop(EXACT_GELU, 0)):
        known["activation"] = "gelu"
    source = "the state dict given to build_model"
    sizes = infer_config(state, {"sizes": json.dumps(known)}, source)
    with torch.device("meta"):  # shapes only: no time spent on a random start
        model = CLIP(sizes)
    add_counts(state, model.state_dict())
    try:  # copies: a model that is trained must not change the caller's tensors
        copies = {k: v.to(torch.float32 if v.is_floating_point() else v.dtype, copy=True) for k, v in state.items()}
        model.load_state_dict(copies, assign=True)
    except RuntimeError as error:
        raise UserError(f"{source} does not fit a CLIP of its sizes: {error}") from error
    convert_weights(model)
    _put_prompts_inside(model, design_details or {})
    return model.eval()


def convert_weights(model: nn.Module) -> None:
    """To half precision, in place: what multiplies. Norms, embeddings and the scale stay as they are."""
    for module in model.modules():
        multiplies = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | Attention | nn.MultiheadAttention)
        for name, parameter in module.named_parameters(recurse=False):
            if multiplies or name in ("text_projection", "proj"):
                parameter.data = parameter.data.half()


def numbers_of(sizes: CLIPConfig) -> dict[str, Tensor]:
    """What `build_model` must be told beside the weights themselves, as entries of their state dict."""
    numbers = {key: torch.tensor(getattr(sizes, key)) for key in HEADS}
    return {**numbers, EXACT_GELU: torch.tensor(int(sizes.activation == "gelu"))}


def _put_prompts_inside(model: CLIP, design: dict) -> None:
    """IVLP's and VPT's prompts: the image tower's first under `visual.VPT`, later ones under their layers'
    `VPT_shallow`. The text's first are the trainer's own."""
    depths = {side: design.get(f"{side}_depth", 0) for side in ("vision", "language")}
    if not any(depths.values()):
        return
    if design.get("trainer") not in PROMPTS_INSIDE:
        raise UserError(
            f"design_details ask for prompts inside the encoders of trainer {design.get('trainer')!r}; expected one of "
            f"{', '.join(PROMPTS_INSIDE)}, or depths of 0: the trainer file needs its own repository's clip/model.py"
        )
    for side, transformer in (("vision", model.visual.transformer), ("language", model.transformer)):
        owners = [model.visual] if side == "vision" else [None]
        owners += transformer.resblocks[1:]
        for owner in owners[: depths[side]]:
            if owner is not None:
                prompts = nn.Parameter(0.02 * torch.randn(design[f"{side}_ctx"], transformer.width))
                owner.register_parameter("VPT" if owner is model.visual else "VPT_shallow", prompts)
