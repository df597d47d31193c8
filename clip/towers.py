"""CLIP's two towers with OpenAI's parameter names: the only place that walks the layers.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020.
Letters: B images, N texts, L text positions in use, D the shared embedding's width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basics import UserError

from .attention import Attention, KeysValues, Memory, Segment, take
from .readers import reader

Rewrite = Callable[[int, dict[str, Segment]], None]


@dataclass(frozen=True)
class Sizes:
    """All sizes of a CLIP. Of a trained one they are read off its weights (`clip.sizes.sizes_of`)."""

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

    def image_tower(self) -> nn.Module:
        """An image tower of these sizes (`clip.resnet.ResNetSizes` makes another kind)."""
        return VisionTransformer(self)


class LayerNorm(nn.LayerNorm):
    """Layer norm that computes in float32 whatever the tower's precision, as OpenAI's does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps).to(x)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): the activation of OpenAI's weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(1.702 * x) / 1.702  # the same, but one tensor kept for the backward pass in place of two


ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class ResidualAttentionBlock(nn.Module):
    """One layer's parts. How they are walked stands in `Transformer`."""

    def __init__(self, width: int, heads: int, activation: str):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width), gelu=ACTIVATIONS[activation](), c_proj=nn.Linear(4 * width, width)
            )
        )
        self.ln_2 = LayerNorm(width)


class Transformer(nn.Module):
    """The layers of one tower.

    Args:
        causal: a segment that reads itself reads, for each token, those up to that token (text) or all (image).
    """

    def __init__(self, width: int, layers: int, heads: int, activation: str, causal: bool):
        super().__init__()
        self.causal = causal
        self.resblocks = nn.Sequential(*(ResidualAttentionBlock(width, heads, activation) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """All layers over one sequence that reads itself, (n, batch, width) as in OpenAI's code, the same back."""
        return self.walk({"x": Segment(x.transpose(0, 1), reads=("x",))})["x"].transpose(0, 1)

    def walk(
        self, segments: dict[str, Segment], memory: Memory | None = None, rewrite: Rewrite | None = None
    ) -> dict[str, Tensor]:
        """All layers over the segments.

        Args:
            segments: in order of position; their `reads` name each other or parts of the memory.
            memory: what earlier, frozen segments wrote (`remember`).
            rewrite: called before each layer with its number and the segments; may set their `tokens` (fused prompts).

        Returns:
            For each wanted segment its tokens after the last layer, (*batch, m, width): all, or those at `output`.
        """
        return self._run(segments, memory or Memory(), rewrite, into=None)

    @torch.no_grad()
    def remember(self, segments: dict[str, Segment]) -> Memory:
        """What the segments write in each layer, without gradients, to be read by others later."""
        memory = Memory(sizes={name: (s.tokens.shape[-2], s.lengths) for name, s in segments.items()})
        self._run(segments, Memory(), None, into=memory)
        return memory

    def _run(
        self, segments: dict[str, Segment], memory: Memory, rewrite: Rewrite | None, into: Memory | None
    ) -> dict[str, Tensor]:
        segments = {name: Segment(**vars(s)) for name, s in segments.items()}  # the caller's are left as they are
        read = {name for s in segments.values() for name in s.reads}
        unknown = read - segments.keys() - memory.sizes.keys()
        if unknown:
            raise ValueError(f"segments {sorted(unknown)} are read, but are neither given nor remembered")
        readers = {name: reader(name, segments, memory, self.causal) for name in segments}
        for depth, block in enumerate(self.resblocks):
            last = depth == len(self.resblocks) - 1
            for s in segments.values():
                if 0 < depth <= len(s.deep):
                    s.tokens = s.deep[depth - 1]
            if rewrite is not None:
                rewrite(depth, segments)
            # Everyone writes before anyone reads. Who is replaced before the next layer, or only read, does not ask.
            queries, written = {}, dict(memory.layers[depth]) if memory.layers else {}
            for name, s in segments.items():
                asks = (into is None and s.wanted) if last else depth >= len(s.deep)
                writes = into is not None or name in read
                some = last and asks and s.output is not None  # only these positions ask
                x = block.ln_1(s.tokens) if asks or writes else None
                if some:
                    queries[name], _ = block.attn.project(take(x, s.output), asks=True, writes=False)
                if writes or (asks and not some):
                    asked, written[name] = block.attn.project(x, asks and not some, writes)
                    if asked is not None:
                        queries[name] = asked
            if into is not None:
                into.layers.append({name: written[name] for name in segments})
            joined: dict[tuple[str, ...], KeysValues] = {}
            for name, asked in queries.items():
                s, output = segments[name], last and segments[name].output is not None
                tokens = take(s.tokens, s.output) if output else s.tokens
                x = tokens + readers[name].read(block.attn, asked, written, joined, output)
                s.tokens = x + block.mlp(block.ln_2(x))
        return {name: s.tokens for name, s in segments.items() if s.wanted} if into is None else {}


class VisionTransformer(nn.Module):
    """The image tower."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width, grid = sizes.vision_width, sizes.image_size // sizes.patch_size
        self.input_resolution = sizes.image_size
        self.conv1 = nn.Conv2d(3, width, sizes.patch_size, sizes.patch_size, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(grid**2 + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, sizes.vision_layers, sizes.vision_heads, sizes.activation, causal=False)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, sizes.embed_dim))

    def embed(self, images: Tensor) -> Tensor:
        """[CLS, patches] as the first layer gets them: images (B, 3, H, W) -> (B, 1 + patches, width)."""
        check_size(images, self.input_resolution)
        x = self.conv1(images.to(self.conv1.weight)).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.to(x).expand(len(x), 1, -1), x], dim=1)
        return self.ln_pre(x + self.positional_embedding.to(x))

    def project(self, x: Tensor) -> Tensor:
        """Tokens after the last layer (..., width) -> features (..., D), not normalised."""
        return self.ln_post(x) @ self.proj

    def forward(self, images: Tensor) -> Tensor:
        """The CLS feature: (B, 3, H, W) -> (B, D), not normalised."""
        tokens = self.embed(images)
        image = Segment(tokens, reads=("image",), output=torch.zeros(1, 1, dtype=torch.long, device=tokens.device))
        return self.project(self.transformer.walk({"image": image})["image"][:, 0])


class CLIP(nn.Module):
    """CLIP: an image tower and a text tower into one space.

    Args:
        sizes: of a CLIP with a ViT, or `clip.resnet.ResNetSizes`.
    """

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes = sizes
        self.context_length = sizes.context_length
        self.visual = sizes.image_tower()
        self.transformer = Transformer(
            sizes.text_width, sizes.text_layers, sizes.text_heads, sizes.activation, causal=True
        )
        self.vocab_size = sizes.vocab_size
        self.token_embedding = nn.Embedding(sizes.vocab_size, sizes.text_width)
        self.positional_embedding = nn.Parameter(torch.empty(sizes.context_length, sizes.text_width))
        self.ln_final = LayerNorm(sizes.text_width)
        self.text_projection = nn.Parameter(torch.empty(sizes.text_width, sizes.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.initialize_parameters()

    def initialize_parameters(self) -> None:
        """Random start as in OpenAI's CLIP: the residual branches shrink with depth."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=self.sizes.text_width**-0.5)
        image = [part for part in self.visual.modules() if isinstance(part, Transformer)]  # a ResNet has none
        for tower in (self.transformer, *image):
            for block in tower.resblocks:
                width = block.ln_1.normalized_shape[0]
                out_std = width**-0.5 * (2 * len(tower.resblocks)) ** -0.5
                nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
                nn.init.normal_(block.attn.out_proj.weight, std=out_std)
                nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
                nn.init.normal_(block.mlp.c_proj.weight, std=out_std)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the towers."""
        return self.visual.conv1.weight.dtype

    def embed_text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Words as the first layer gets them, cut behind the last end-of-text token: the rest is read by nobody.

        Args:
            tokens: (N, context length) int.

        Returns:
            (N, L, text width) with positions added, and the end-of-text positions (N,).
        """
        end = end_of_text(tokens)
        tokens = tokens[:, : int(end.max()) + 1]
        x = self.token_embedding(tokens).to(self.dtype)
        return x + self.positional_embedding[: tokens.shape[1]].to(x), end

    def project_text(self, x: Tensor) -> Tensor:
        """Tokens after the last layer (..., text width) -> features (..., D), not normalised."""
        return self.ln_final(x) @ self.text_projection

    def encode_text(self, tokens: Tensor) -> Tensor:
        """The end-of-text feature: (N, context length) int -> (N, D), not normalised."""
        x, end = self.embed_text(tokens)
        words = Segment(x, reads=("words",), output=end[:, None])
        return self.project_text(self.transformer.walk({"words": words})["words"][:, 0])

    def encode_image(self, images: Tensor) -> Tensor:
        """The image feature: (B, 3, H, W) -> (B, D), not normalised."""
        return self.visual(images)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits per image (B, N) and per text (N, B)."""
        image = F.normalize(self.encode_image(images), dim=-1)
        text = F.normalize(self.encode_text(tokens), dim=-1)
        logits = self.logit_scale.exp() * image @ text.t()
        return logits, logits.t()


def check_size(images: Tensor, size: int) -> None:
    """Refuse images (B, 3, H, W) that are not `size` pixels high and wide."""
    if tuple(images.shape[-2:]) != (size, size):
        raise UserError(
            f"the image size does not fit the backbone: expected {size} x {size} pixels, found "
            f'{images.shape[-2]} x {images.shape[-1]}; set INPUT.SIZE "({size}, {size})"'
        )


def end_of_text(tokens: Tensor) -> Tensor:
    """Positions of the end-of-text token, which has the highest number: (N, n) -> (N,)."""
    return tokens.argmax(dim=-1)
