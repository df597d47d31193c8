import math

import torch
from torch import nn


class Transformer(nn.Module):
    def __init__(self, width, layers, mask=None):
        super().__init__()
        self.resblocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, norm_first=True) for _ in range(layers)
        )
        self.mask = mask

    def forward(self, x):
        for block in self.resblocks:
            x = block(x, src_mask=None if self.mask is None else self.mask.to(x))
        return x


class VisionTransformer(nn.Module):
    def __init__(self, input_resolution, patch, width, output_dim):
        super().__init__()
        self.input_resolution = input_resolution
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) / math.sqrt(width))
        positions = (input_resolution // patch) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.randn(positions, width) / math.sqrt(width))
        self.transformer = Transformer(width, 2)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, output_dim) / math.sqrt(width))

    def forward(self, x):
        x = self.conv1(x).flatten(2).permute(2, 0, 1)
        x = torch.cat([self.class_embedding.expand(1, x.shape[1], -1), x]) + self.positional_embedding.unsqueeze(1)
        return self.ln_post(self.transformer(x)[0]) @ self.proj


class CLIP(nn.Module):
    def __init__(self, resolution=16, patch=8, width=32, embed_dim=24, context_length=24, vocab_size=258):
        super().__init__()
        self.visual = VisionTransformer(resolution, patch, width, embed_dim)
        mask = torch.full((context_length, context_length), float("-inf")).triu(1)
        self.transformer = Transformer(width, 2, mask)
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(context_length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, embed_dim) / math.sqrt(width))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def dtype(self):
        return self.visual.conv1.weight.dtype


def build_model(state_dict=None):
    model = CLIP()
    if state_dict is not None:
        model.load_state_dict(state_dict)
    return model.eval()
