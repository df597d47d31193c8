"""The referee: CLIP and its methods as the released code computes them.

77 positions for every text, full masks, nothing shared, nothing cached, torch's own multi-head attention. Speed is
measured against this, so it does what the released code does in a step, and no more: layers run on (n, N, width), with
positions first; only masks that forbid something are passed; class texts that nothing changes are encoded once, by the
caller.

Everything is a function of a state dict with OpenAI's names; `heads` is (vision heads, text heads).
"""

import torch
import torch.nn.functional as F

from clip import tokenize
from clip.tokenizer import encode


def attention(sd, prefix, x, heads, mask):
    """Attend: x (n, N, width); mask (n, n), (N * heads, n, n) or None: what is added to the scores."""
    out, _ = F.multi_head_attention_forward(
        x, x, x, x.shape[-1], heads, sd[prefix + "in_proj_weight"], sd[prefix + "in_proj_bias"], None, None, False, 0.0,
        sd[prefix + "out_proj.weight"], sd[prefix + "out_proj.bias"], attn_mask=mask, need_weights=False,
    )  # fmt: skip
    return out


def layer_norm(sd, name, x):
    return F.layer_norm(x, x.shape[-1:], sd[name + ".weight"], sd[name + ".bias"])


def linear(sd, name, x):
    return F.linear(x, sd[name + ".weight"], sd[name + ".bias"])


def layers(
    sd, prefix, x, heads, allowed=None, before_layer=lambda i, x: x, mlp_update=lambda i, x, update: update,
    attend=attention, depths=slice(None),
):  # fmt: skip
    """Return the hidden states after the last layer of a tower, and those after each layer, (N, n, width).

    Args:
        x: sequences (N, n, width).
        allowed: bool (n, n) or (N, n, n), token i attends to token j; None: every token attends to every token.
        before_layer: layer index and its input (n, N, width) -> what the layer gets instead (deep prompts).
        mlp_update: layer index, its input, and the output of its MLP -> what is added to the tokens instead (adapters).
        attend: what computes the attention instead of `attention`.
        depths: the layers that run.
    """
    mask = None
    if allowed is not None:
        allowed = allowed.repeat_interleave(heads, dim=0) if allowed.dim() == 3 else allowed
        mask = torch.zeros(allowed.shape, dtype=x.dtype).masked_fill(~allowed, float("-inf")).to(x.device)
    hidden, x = [], x.transpose(0, 1).contiguous()
    count = len({k.split(".resblocks.")[1].split(".")[0] for k in sd if k.startswith(prefix + "resblocks.")})
    for i in range(count)[depths]:
        block = f"{prefix}resblocks.{i}."
        x = entering = before_layer(i, x)
        x = x + attend(sd, block + "attn.", layer_norm(sd, block + "ln_1", x), heads, mask)
        h = linear(sd, block + "mlp.c_fc", layer_norm(sd, block + "ln_2", x))
        x = x + mlp_update(i, entering, linear(sd, block + "mlp.c_proj", h * torch.sigmoid(1.702 * h)))
        hidden.append(x.transpose(0, 1))
    return hidden[-1], hidden


def causal(n):
    return torch.ones(n, n, dtype=torch.bool).tril()


def project_text(sd, x):
    return layer_norm(sd, "ln_final", x) @ sd["text_projection"]


def project_image(sd, x):
    return layer_norm(sd, "visual.ln_post", x) @ sd["visual.proj"]


def embed_image(sd, images):
    """Embed images (B, 3, H, W) as [CLS, patches]."""
    conv = sd["visual.conv1.weight"]
    patches = F.conv2d(images, conv, stride=conv.shape[-1]).flatten(2).transpose(1, 2)
    cls = sd["visual.class_embedding"].expand(len(images), 1, -1)
    return layer_norm(sd, "visual.ln_pre", torch.cat([cls, patches], dim=1) + sd["visual.positional_embedding"])


def encode_image(sd, images, heads, normalize=True, **changes):
    """Encode images as CLS features (B, D); `changes` are those of `layers`."""
    x = embed_image(sd, images)
    x, _ = layers(sd, "visual.transformer.", x, heads[0], **changes)
    x = project_image(sd, x[:, 0])
    return F.normalize(x, dim=-1) if normalize else x


def encode_sequences(sd, x, end, heads, normalize=True, **changes):
    """Encode texts (C, 77, width) that end at positions (C,) as end-of-text features (C, D)."""
    x, _ = layers(sd, "transformer.", x + sd["positional_embedding"], heads[1], causal(x.shape[1]), **changes)
    x = project_text(sd, x[torch.arange(len(x)), end])
    return F.normalize(x, dim=-1) if normalize else x


def encode_text(sd, texts, heads, **changes):
    tokens = tokenize(texts)
    return encode_sequences(sd, sd["token_embedding.weight"][tokens], tokens.argmax(dim=1), heads, **changes)


def similarity(sd, image, text):
    return sd["logit_scale"].exp() * image @ text.T


def expand(prompts, like):
    """Repeat prompts (m, width) for all sequences of (n, N, width): (m, N, width)."""
    return prompts[:, None].expand(-1, like.shape[1], -1)


def zero_shot(sd, images, texts, heads):
    """Return logits (B, C)."""
    return similarity(sd, encode_image(sd, images, heads), encode_text(sd, texts, heads))


def encode_with_context(sd, classnames, ctx, heads, position="end", deep=(), normalize=True):
    """Encode classes (C, D): ctx (M, width) or (C, M, width), replaced by `deep` before layers 1, 2, ...

    deep: contexts (M, width); or {layer: tokens of the classes (C, M, width)}.
    """
    n_ctx, deep = ctx.shape[-2], deep if isinstance(deep, dict) else dict(enumerate(deep, 1))
    tokens = tokenize([" ".join(["X"] * n_ctx) + f" {name}." for name in classnames])
    half = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    sequences = []
    for i, classname in enumerate(classnames):
        x, c = sd["token_embedding.weight"][tokens[i]], ctx[i] if ctx.dim() == 3 else ctx
        end = 1 + n_ctx + len(encode(classname))  # of the name
        start, name, rest = x[:1], x[1 + n_ctx : end], x[end:]
        sequences.append(torch.cat([start, c[:half], name, c[half:], rest]))

    def before_layer(i, x):
        if i not in deep:
            return x
        own = deep[i].transpose(0, 1) if deep[i].dim() == 3 else expand(deep[i], x)
        return torch.cat([x[:1], own, x[1 + n_ctx :]])

    end = tokens.argmax(dim=1)
    return encode_sequences(sd, torch.stack(sequences), end, heads, normalize, before_layer=before_layer)


def encode_image_with(sd, images, prompts, deep, heads, normalize=True):
    """Encode images (B, D): prompts (n, width) or (B, n, width) after the patches, replaced before layers 1, 2, ..."""
    x = embed_image(sd, images)
    n = x.shape[1]
    x = torch.cat([x, layer_norm(sd, "visual.ln_pre", prompts).expand(len(x), -1, -1)], dim=1)

    def before_layer(i, x):
        return torch.cat([x[:n], expand(deep[i - 1], x)]) if 0 < i <= len(deep) else x

    x, _ = layers(sd, "visual.transformer.", x, heads[0], None, before_layer)
    x = project_image(sd, x[:, 0])
    return F.normalize(x, dim=-1) if normalize else x


def sep_fuse(fusion, tokens, prompts, across):
    """Fuse tokens and prompts (n, N, width) as SEP; across: attend along N, as the released code does."""
    p = dict(fusion.named_parameters())
    width = tokens.shape[-1]

    def norm(name, x):
        return F.layer_norm(x, (width,), p[name + ".weight"], p[name + ".bias"])

    queries, keys = norm("ln_pa_1_visual", prompts), norm("ln_pa_1_visual", tokens)
    if across:  # the operator attends along its first axis
        queries, keys = queries.transpose(0, 1), keys.transpose(0, 1)
    mha = "promt_attention_visual."
    update, _ = F.multi_head_attention_forward(
        queries, keys, keys, width, max(width // 64, 1), p[mha + "in_proj_weight"], p[mha + "in_proj_bias"], None, None,
        False, 0.0, p[mha + "out_proj.weight"], p[mha + "out_proj.bias"], need_weights=False,
    )  # fmt: skip
    fused = p["scale1"] * tokens + (1 - p["scale1"]) * (update.transpose(0, 1) if across else update)
    h = norm("ln_pa_2_visual", fused) @ p["mlp_pa_visual.c_fc1.weight"].T
    h = (h * torch.sigmoid(1.702 * h)) @ p["mlp_pa_visual.c_proj.weight"].T
    return p["scale2"] * fused + (1 - p["scale2"]) * h


def sep(sd, images, classnames, text0, learner, chosen, across, heads):
    """Return SEP's features: text, frozen image (B, D), image; fused before the `chosen` layers.

    text0: the frozen text features (C, D), which the released code computes once.
    """
    ctx, ctx_visual = learner.ctx.to(images.dtype), learner.ctx_visual.to(images.dtype)
    n, n_v = len(ctx), len(ctx_visual)
    size = embed_image(sd, images[:1]).shape[1]

    def fuse(fusion, tokens, prompts):  # what is trained stays in float32
        return sep_fuse(fusion, tokens.float(), prompts.float(), across).to(images.dtype)

    def rewrite_text(i, x):
        if i not in chosen:
            return x
        fused = fuse(learner.prompt_projections[chosen.index(i)], x[1 + n : 1 + 2 * n], x[1 : 1 + n])
        return torch.cat([x[:1], fused, x[1 + n :]])

    def rewrite_image(i, x):
        if i not in chosen:
            return x
        energy = x[:size].square().mean(dim=2)
        energy = energy.mean(dim=1, keepdim=True).expand_as(energy) if across else energy
        most = energy.topk(n_v, dim=0).indices
        tokens = x.gather(0, most[..., None].expand(-1, -1, x.shape[-1]))
        return torch.cat([x[:size], fuse(learner.visual_prompts[chosen.index(i)], tokens, x[size:])])

    tokens = tokenize([" ".join(["X"] * n) + f" {name}." for name in classnames])
    x = sd["token_embedding.weight"][tokens]
    x = torch.cat([x[:, :1], ctx.expand(len(x), -1, -1), x[:, 1 + n :]], dim=1)
    text = encode_sequences(sd, x, tokens.argmax(dim=1), heads, before_layer=rewrite_text)
    x = embed_image(sd, images)
    x = torch.cat([x, layer_norm(sd, "visual.ln_pre", ctx_visual).expand(len(x), -1, -1)], dim=1)
    x, _ = layers(sd, "visual.transformer.", x, heads[0], None, rewrite_image)
    image = F.normalize(project_image(sd, x[:, 0]), dim=-1)
    image0 = encode_image(sd, images, heads)
    return F.normalize(text + text0, dim=-1), image0, F.normalize(image + image0, dim=-1)


def coop(sd, images, classnames, ctx, position, heads):
    """Return CoOp's logits (B, C)."""
    return similarity(sd, encode_image(sd, images, heads), encode_with_context(sd, classnames, ctx, heads, position))


def cocoop(sd, images, classnames, ctx, meta_net, heads):
    """Return CoCoOp's logits (B, C): all texts are encoded for each image, their context shifted by the meta-net."""
    logits = []
    for feature in encode_image(sd, images, heads):
        text = encode_with_context(sd, classnames, ctx + meta_net(feature), heads)
        logits.append(similarity(sd, feature, text))
    return torch.stack(logits)


def maple(sd, images, classnames, ctx, deep, image_prompts, heads):
    """Return MaPLe's and IVLP's logits (B, C): contexts of the text layers, prompts of the image layers."""
    text = encode_with_context(sd, classnames, ctx, heads, deep=deep)
    return similarity(sd, encode_image_with(sd, images, image_prompts[0], image_prompts[1:], heads), text)


def vpt(sd, images, text, image_prompts, heads):
    """Return VPT's logits (B, C) against the features (C, D) of fixed texts, which the released code encodes once."""
    image = encode_image_with(sd, images, image_prompts[0], image_prompts[1:], heads)
    return similarity(sd, image, text)


def rpo_text(sd, texts, prompts, heads):
    """Let K prompts follow the end-of-text token; they attend to what precedes them, and no token attends to them.

    Returns the prompts' features (C, K, D), CLIP's own EOS features (C, D), and the hidden states of all layers.
    """
    tokens, k = tokenize(texts), len(prompts)
    words = sd["token_embedding.weight"][tokens] + sd["positional_embedding"]
    sequences, masks, n = [], [], tokens.shape[1]
    ends = tokens.argmax(dim=1).tolist()
    for x, end in zip(words, ends, strict=True):
        sequences.append(torch.cat([x[: end + 1], prompts, x[end + 1 + k :]]))
        allowed = causal(n)
        allowed[:, end + 1 : end + 1 + k] = False
        allowed[end + 1 : end + 1 + k] = torch.arange(n) <= end
        masks.append(allowed)
    x, hidden = layers(sd, "transformer.", torch.stack(sequences), heads[1], torch.stack(masks))
    own = torch.stack([x[i, end] for i, end in enumerate(ends)])
    prompted = torch.stack([x[i, end + 1 : end + 1 + k] for i, end in enumerate(ends)])
    return F.normalize(project_text(sd, prompted), dim=-1), F.normalize(project_text(sd, own), dim=-1), hidden


def rpo_image(sd, images, prompts, heads):
    """Let K prompts follow the patches; no token attends to them. Returns (B, K, D), (B, D), as `rpo_text`."""
    x = embed_image(sd, images)
    n, k = x.shape[1], len(prompts)
    x = torch.cat([x, layer_norm(sd, "visual.ln_pre", prompts).expand(len(x), -1, -1)], dim=1)
    allowed = torch.ones(n + k, n + k, dtype=torch.bool)
    allowed[:, n:] = False
    x, hidden = layers(sd, "visual.transformer.", x, heads[0], allowed)
    return F.normalize(project_image(sd, x[:, n:]), dim=-1), F.normalize(project_image(sd, x[:, 0]), dim=-1), hidden


def rpo(sd, images, texts, text_prompt, img_prompt, heads):
    """Return RPO's logits (B, C): the mean over K pairs of their cosines."""
    text, _, _ = rpo_text(sd, texts, text_prompt, heads)
    image, _, _ = rpo_image(sd, images, img_prompt, heads)
    return sd["logit_scale"].exp() * torch.einsum("bkd,ckd->bc", image, text) / len(text_prompt)


def low_rank_attention(updates, scale):
    """Return an attention with low-rank updates of its maps; `updates`: (name of the attention, map) -> (A, B)."""

    def attend(sd, prefix, x, heads, mask):
        width, parts = x.shape[-1], []
        for i, name in enumerate("qkv"):
            rows = slice(i * width, (i + 1) * width)
            part = F.linear(x, sd[prefix + "in_proj_weight"][rows], sd[prefix + "in_proj_bias"][rows])
            a, b = updates(prefix, name)
            part = part + scale * (x @ a.T @ b.T)
            parts.append(part.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3))
        x = F.scaled_dot_product_attention(*parts, attn_mask=mask).permute(2, 0, 1, 3).flatten(2)
        return F.linear(x, sd[prefix + "out_proj.weight"], sd[prefix + "out_proj.bias"])

    return attend


def mmrl_image(sd, images, tokens, first, heads):
    """Return MMRL's CLS feature (B, D) and its tokens after `ln_post` (B, K, width).

    tokens: (K, width) for each layer from `first` on, after the class token.
    """
    x, k = embed_image(sd, images), len(tokens[0])
    if first:
        x, _ = layers(sd, "visual.transformer.", x, heads[0], depths=slice(first))
    x = torch.cat([x[:, :1], tokens[0].expand(len(x), -1, -1), x[:, 1:]], dim=1)

    def before_layer(i, x):
        return torch.cat([x[:1], expand(tokens[i - first], x), x[1 + k :]]) if first < i < first + len(tokens) else x

    x, _ = layers(sd, "visual.transformer.", x, heads[0], None, before_layer, depths=slice(first, None))
    return F.normalize(project_image(sd, x[:, 0]), dim=-1), layer_norm(sd, "visual.ln_post", x[:, 1 : 1 + k])


def mmrl_text(sd, texts, tokens, first, heads):
    """Return MMRL's class features (C, D): tokens (K, width) for each layer from `first` on, after [SOS]."""
    ids, k = tokenize(texts), len(tokens[0])
    x = sd["token_embedding.weight"][ids] + sd["positional_embedding"]
    if first:
        x, _ = layers(sd, "transformer.", x, heads[1], causal(x.shape[1]), depths=slice(first))
    x = torch.cat([x[:, :1], tokens[0].expand(len(x), -1, -1), x[:, 1:]], dim=1)

    def before_layer(i, x):
        return torch.cat([x[:1], expand(tokens[i - first], x), x[1 + k :]]) if first < i < first + len(tokens) else x

    x, _ = layers(sd, "transformer.", x, heads[1], causal(x.shape[1]), before_layer, depths=slice(first, None))
    return F.normalize(project_text(sd, x[torch.arange(len(x)), ids.argmax(dim=1) + k]), dim=-1)
