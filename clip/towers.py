"""CLIP's two towers with OpenAI's parameter names: the only place where layers run.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020.
Symbols: B images, N texts, L text positions in use, D the width of the shared embedding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention, KeysValues, LinearUpdate, Segment
from .config import CLIPConfig, ResNetConfig, check_size
from .kv_cache import KVCache, Layer
from .linear import Linear
from .patterns import Pattern, gather_tokens
from .ragged import RaggedPattern, pattern

if TYPE_CHECKING:
    from .resnet import ResNet

BeforeLayer = Callable[[int, dict[str, Segment]], None]


class LayerNorm(nn.LayerNorm):
    """Layer norm that computes in float32 whatever the precision of the tower, as OpenAI's does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps).to(x)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): the activation of OpenAI's weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(1.702 * x) / 1.702  # the same, but the backward pass keeps one tensor instead of two


ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class LayerAdapter(nn.Module):
    """Trained parts that a method adds to one frozen layer. These defaults add nothing."""

    def linear_update(self, name: str, x: Tensor) -> Tensor | None:
        """Return what is added to the result of one of the attention's linear maps.

        Args:
            name: "q", "k", "v", or "o" (`out_proj`).
            x: the input of the map, (*batch, n, width).

        Returns:
            (*batch, n, width), or None for nothing.
        """
        return None

    def mlp_update(self, block: ResidualAttentionBlock, tokens: Tensor, update: Tensor) -> Tensor:
        """Return what is added to the tokens instead of the MLP's output.

        Args:
            block: the frozen layer.
            tokens: as they enter the layer, (*batch, n, width).
            update: the MLP's output, of the same shape.
        """
        return update


class ResidualAttentionBlock(nn.Module):
    """One layer: attention and an MLP, each after a norm, each added to the tokens."""

    def __init__(self, width: int, heads: int, activation: str):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=Linear(width, 4 * width), gelu=ACTIVATIONS[activation](), c_proj=Linear(4 * width, width))
        )
        self.ln_2 = LayerNorm(width)

    def update(self, tokens: Tensor, attended: Tensor, adapter: LayerAdapter | None = None) -> Tensor:
        """Return the tokens after this layer, given the result of its attention; all (*batch, n, width)."""
        x = tokens + attended
        update = self.mlp(self.ln_2(x))
        return x + (update if adapter is None else adapter.mlp_update(self, tokens, update))


class Trace(Protocol):
    """Observes what passes through a tower (`Transformer.trace`)."""

    def on_forward(
        self, segments: dict[str, Segment], cache: KVCache | None, before_layer: BeforeLayer | None
    ) -> BeforeLayer | None:
        """Observe the start of a forward pass. Return `before_layer`, or a function to call instead of it."""
        ...

    def on_prefill(self, segments: dict[str, Segment], cache: KVCache) -> None:
        """Observe the filled cache of these segments."""
        ...


class Transformer(nn.Module):
    """The layers of one tower.

    Args:
        causal: a token that attends to its own segment attends to the tokens up to itself (text), or to all (image).

    Attributes:
        trace: an observer, or None.
    """

    def __init__(self, width: int, layers: int, heads: int, activation: str, causal: bool):
        super().__init__()
        self.causal = causal
        self.trace: Trace | None = None
        self.resblocks = nn.Sequential(*(ResidualAttentionBlock(width, heads, activation) for _ in range(layers)))

    @property
    def blocks(self) -> list[ResidualAttentionBlock]:
        """The layers, typed."""
        return cast(list[ResidualAttentionBlock], list(self.resblocks))

    def cache_bytes(self, tokens: int) -> int:
        """Return the size of the KV cache of so many tokens, in bytes."""
        weight = self.blocks[0].attn.out_proj.weight
        return 2 * len(self.blocks) * tokens * weight.shape[0] * weight.itemsize

    def forward(
        self,
        segments: dict[str, Segment],
        cache: KVCache | None = None,
        before_layer: BeforeLayer | None = None,
        adapters: Mapping[int, LayerAdapter] | None = None,
    ) -> dict[str, Tensor]:
        """Run all layers over the segments.

        Args:
            segments: by name, in order of position; they attend to one another or to segments in the cache.
            cache: keys and values of frozen segments (`prefill`).
            before_layer: called before each layer with its index and the segments, whose `tokens` it may replace.
            adapters: trained parts of layers, by their index.

        Returns:
            For each wanted segment its tokens after the last layer, (*batch, m, width): all, or those at `output`.

        Raises:
            ValueError: a segment attends to one that is neither among the segments nor in the cache.
        """
        if self.trace is not None:
            before_layer = self.trace.on_forward(segments, cache, before_layer)
        cache, adapters = cache or KVCache(), adapters or {}
        if unknown := attended_names(segments) - segments.keys() - cache.sizes.keys():
            raise ValueError(
                f"attends_to: expected names in {sorted(segments.keys() | cache.sizes.keys())}, got {sorted(unknown)}"
            )
        joining, running = {s.first_layer for s in segments.values()}, dict[str, Segment]()
        for depth, block in enumerate(self.blocks):
            last = depth == len(self.resblocks) - 1
            if depth in joining:
                running = join_segments(segments, running, depth, cache)
                patterns = {name: pattern(name, running, cache, self.causal) for name in running}
                needs_keys_values = attended_names(running)
            insert_deep_prompts(running, depth)
            if before_layer is not None:
                before_layer(depth, running)
            # Every segment provides its keys and values before any segment attends.
            layer, queries = Layer(cache.layers[depth] if cache.layers else {}), {}
            adapter = adapters.get(depth)
            update = None if adapter is None else adapter.linear_update
            for name, s in running.items():
                # No queries for tokens that are about to be replaced, or that are not wanted after the last layer.
                needs_queries = s.wanted if last else depth - s.first_layer >= len(s.deep)
                output = s.output if last else None
                q, kv = project(block, s, needs_queries, name in needs_keys_values, output, update)
                if q is not None:
                    queries[name] = q
                if kv is not None:
                    layer[name] = kv
            for name, q in queries.items():
                s = running[name]
                output = s.output if last else None
                tokens = s.tokens if output is None else gather_tokens(s.tokens, output)
                attended = patterns[name].attend(block.attn, q, layer, output is not None, update)
                s.tokens = block.update(tokens, attended, adapter)
        return {name: s.tokens for name, s in running.items() if s.wanted}

    @torch.no_grad()
    def prefill(self, segments: dict[str, Segment]) -> KVCache:
        """Compute keys and values of the segments in each layer, without gradients. They attend only to one another."""
        cache = KVCache(sizes={name: (s.tokens.shape[-2], s.lengths) for name, s in segments.items()})
        *blocks, last = self.blocks
        tokens = {name: s.tokens for name, s in segments.items()}
        patterns = {name: pattern(name, segments, KVCache(), self.causal) for name in segments}
        for block in blocks:
            tokens, keys_values = run_frozen(block, tokens, patterns)
            cache.layers.append(keys_values)
        cache.layers.append({name: last.attn.keys_values(last.ln_1(x)) for name, x in tokens.items()})
        if self.trace is not None:
            self.trace.on_prefill(segments, cache)
        return cache

    @torch.no_grad()
    def run_below(self, depth: int, segments: dict[str, Segment]) -> dict[str, Tensor]:
        """Run the layers below `depth` without gradients. The segments attend only to one another.

        Returns:
            For each segment the tokens that enter the layer `depth`, (*batch, n, width): those of a segment with this
            `first_layer`.
        """
        tokens = {name: s.tokens for name, s in segments.items()}
        patterns = {name: pattern(name, segments, KVCache(), self.causal) for name in segments}
        for block in self.blocks[:depth]:
            tokens, _ = run_frozen(block, tokens, patterns)
        return tokens


def run_frozen(
    block: ResidualAttentionBlock, tokens: dict[str, Tensor], patterns: dict[str, Pattern | RaggedPattern]
) -> tuple[dict[str, Tensor], dict[str, KeysValues]]:
    """Return the tokens of all segments after a layer, and their keys and values in it."""
    projected = {name: block.attn.queries_keys_values(block.ln_1(x)) for name, x in tokens.items()}
    keys_values = {name: kv for name, (_, kv) in projected.items()}
    layer = Layer(keys_values)
    attended = {name: patterns[name].attend(block.attn, q, layer, False) for name, (q, _) in projected.items()}
    return {name: block.update(tokens[name], attended[name]) for name in tokens}, keys_values


def attended_names(segments: dict[str, Segment]) -> set[str]:
    """Return the names of all segments that one of these attends to."""
    return {name for s in segments.values() for name in s.attends_to}


def join_segments(
    segments: dict[str, Segment], running: dict[str, Segment], depth: int, cache: KVCache
) -> dict[str, Segment]:
    """Copy the segments that have joined by this layer, attending only to one another and to the cache.

    Args:
        segments: all segments of the pass.
        running: those that joined before, whose tokens are kept.
    """
    joined = [name for name, s in segments.items() if s.first_layer <= depth]
    return {
        name: replace(
            running.get(name, segments[name]),
            attends_to=tuple(n for n in segments[name].attends_to if n in joined or n in cache.sizes),
        )
        for name in joined
    }


def insert_deep_prompts(segments: dict[str, Segment], depth: int) -> None:
    """Replace the tokens of segments that have deep prompts for this layer."""
    for s in segments.values():
        if s.first_layer < depth <= s.first_layer + len(s.deep):
            s.tokens = s.deep[depth - s.first_layer - 1]


def project(
    block: ResidualAttentionBlock,
    segment: Segment,
    queries: bool,
    keys_values: bool,
    output: Tensor | None,
    update: LinearUpdate | None,
) -> tuple[Tensor | None, KeysValues | None]:
    """Project a segment to its queries (of all tokens, or of those at `output`) and keys with values, as requested."""
    if not queries and not keys_values:
        return None, None
    x = block.ln_1(segment.tokens)
    if queries and keys_values and output is None:
        return block.attn.queries_keys_values(x, update)
    q = block.attn.queries(x if output is None else gather_tokens(x, output), update) if queries else None
    return q, block.attn.keys_values(x, update) if keys_values else None


class VisionTransformer(nn.Module):
    """The image tower."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        width, grid = config.vision_width, config.image_size // config.patch_size
        self.input_resolution = config.image_size
        self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(grid**2 + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(
            width, config.vision_layers, config.vision_heads, config.activation, causal=False
        )
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, config.embed_dim))

    def embed(self, images: Tensor) -> Tensor:
        """Return [CLS, patches] before the first layer: images (B, 3, H, W) -> (B, 1 + patches, width)."""
        check_size(images, self.input_resolution)
        x = self.conv1(images.to(self.conv1.weight)).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.to(x).expand(x.shape[0], 1, -1), x], dim=1)
        return self.ln_pre(x + self.positional_embedding.to(x))

    def project(self, x: Tensor) -> Tensor:
        """Project tokens after the last layer (..., width) to features (..., D), not normalized."""
        return self.ln_post(x) @ self.proj

    def forward(self, images: Tensor) -> Tensor:
        """Return the CLS feature: (B, 3, H, W) -> (B, D), not normalized."""
        tokens = self.embed(images)
        image = Segment(tokens, attends_to=("image",), output=torch.zeros(1, 1, dtype=torch.long, device=tokens.device))
        return self.project(self.transformer({"image": image})["image"][:, 0])


class CLIP(nn.Module):
    """CLIP: an image tower and a text tower with one shared embedding.

    Attributes:
        weights_sha256: of everything that decides the features (set by `clip.weights.load_clip`).
    """

    weights_sha256: str

    def __init__(self, config: CLIPConfig | ResNetConfig):
        super().__init__()
        self.config = config
        self.context_length = config.context_length
        self.visual = image_tower(config)
        self.transformer = Transformer(
            config.text_width, config.text_layers, config.text_heads, config.activation, causal=True
        )
        self.vocab_size = config.vocab_size
        self.token_embedding = nn.Embedding(config.vocab_size, config.text_width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.text_width))
        self.ln_final = LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(torch.empty(config.text_width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.initialize_parameters()
        self.set_eps()

    def set_eps(self) -> None:
        """Give the norms of both towers the number that they add to the variance."""
        for module in self.modules():
            if isinstance(module, LayerNorm):
                module.eps = self.config.layer_norm_eps

    def initialize_parameters(self) -> None:
        """Initialize at random as OpenAI's CLIP does: the residual branches shrink with depth."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=self.config.text_width**-0.5)
        image = [part for part in self.visual.modules() if isinstance(part, Transformer)]  # a ResNet has none
        for tower in (self.transformer, *image):
            for block in tower.blocks:
                width = block.ln_1.normalized_shape[0]
                out_std = width**-0.5 * (2 * len(tower.blocks)) ** -0.5
                nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
                nn.init.normal_(block.attn.out_proj.weight, std=out_std)
                nn.init.normal_(block.get_parameter("mlp.c_fc.weight"), std=(2 * width) ** -0.5)
                nn.init.normal_(block.get_parameter("mlp.c_proj.weight"), std=out_std)

    def tower_shapes(self) -> list[tuple[int, int]]:
        """Return (tokens of one text or image, width) of each tower that is a transformer."""
        shapes = [(self.context_length, self.config.text_width)]
        if isinstance(self.visual, VisionTransformer):
            shapes.append((len(self.visual.positional_embedding), self.config.vision_width))
        return shapes

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the towers."""
        return self.visual.conv1.weight.dtype

    def embed_text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Embed words for the first layer, up to the last end-of-text token: no token attends to the rest.

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
        """Project tokens after the last layer (..., text width) to features (..., D), not normalized."""
        return self.ln_final(x) @ self.text_projection

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode texts by their end-of-text feature: (N, context length) int -> (N, D), not normalized."""
        x, end = self.embed_text(tokens)
        words = Segment(x, attends_to=("words",), output=end[:, None])
        return self.project_text(self.transformer({"words": words})["words"][:, 0])

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode images: (B, 3, H, W) -> (B, D), not normalized."""
        return self.visual(images)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits per image (B, N) and per text (N, B)."""
        image = F.normalize(self.encode_image(images), dim=-1)
        text = F.normalize(self.encode_text(tokens), dim=-1)
        logits = self.logit_scale.exp() * image @ text.t()
        return logits, logits.t()


def image_tower(config: CLIPConfig | ResNetConfig) -> VisionTransformer | ResNet:
    """Create an image tower of these sizes."""
    if isinstance(config, CLIPConfig):
        return VisionTransformer(config)
    from .resnet import ResNet  # imports open_clip, which takes seconds

    return ResNet(config)


def end_of_text(tokens: Tensor) -> Tensor:
    """Return the positions of the end-of-text token, the one with the highest number: (N, n) -> (N,)."""
    return tokens.argmax(dim=-1)
