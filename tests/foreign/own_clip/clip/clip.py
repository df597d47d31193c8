import torch

from .model import CLIP
from .simple_tokenizer import SimpleTokenizer as _Tokenizer

__all__ = ["load", "tokenize"]
_tokenizer = _Tokenizer()


def load(resolution):
    torch.manual_seed(0)
    return CLIP(resolution).eval()


def tokenize(text, length=16):
    tokens = _tokenizer.encode(text)[:length]
    return torch.tensor([tokens + [0] * (length - len(tokens))])
