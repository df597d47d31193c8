import os

import torch

from .model import build_model
from .simple_tokenizer import SimpleTokenizer as _Tokenizer

__all__ = ["available_models", "load", "tokenize"]
_tokenizer = _Tokenizer()
_MODELS = {"Small/8": "small-8.pt"}


def available_models():
    return list(_MODELS)


def _download(file):
    """A repository of the family would download the weights. These are random ones, made on first use."""
    root = os.path.expanduser("~/.cache/small_clip")
    os.makedirs(root, exist_ok=True)
    path = os.path.join(root, file)
    if not os.path.isfile(path):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            torch.save(build_model().state_dict(), path)
    return path


def load(name, device="cpu"):
    state_dict = torch.load(_download(_MODELS[name]), map_location="cpu")
    return build_model(state_dict).to(device)


def tokenize(texts, context_length=24):
    texts = [texts] if isinstance(texts, str) else texts
    result = torch.zeros(len(texts), context_length, dtype=torch.long)
    for i, text in enumerate(texts):
        tokens = [_tokenizer.start, *_tokenizer.encode(text), _tokenizer.end]
        if len(tokens) > context_length:
            raise RuntimeError(f"Input {text} is too long for context length {context_length}")
        result[i, : len(tokens)] = torch.tensor(tokens)
    return result
