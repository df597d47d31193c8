"""Compatibility: CLIP with the names of OpenAI's clip.py, for trainer files that use `from clip import clip`.

Such files find the weights of a backbone themselves:

    path = clip._download(clip._MODELS[name])
    ...read `path` with torch.jit.load, or else with torch.load...
    model = clip.build_model(state_dict)
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from basics import UserError, cache_dir, write_atomic

from .model import CLIP, build_model, config_tensors
from .sources import OPENAI, OPENAI_PIXELS, available_models, fetch_openai, locate
from .tokenizer import tokenize
from .weights import backbone_pixels, load_clip

__all__ = ["available_models", "build_model", "load", "tokenize"]


class _Backbones(Mapping):
    """The name of a backbone -> its URL, or the name again. The path of any weights file is a name, too."""

    def __getitem__(self, name: str) -> str:
        if name in OPENAI:
            from open_clip.pretrained import get_pretrained_url  # takes seconds

            return get_pretrained_url(OPENAI[name], "openai")
        locate(name)  # refuses an unknown one
        return name

    def __iter__(self) -> Iterator[str]:
        return iter(available_models())

    def __len__(self) -> int:
        return len(available_models())

    def __contains__(self, name: object) -> bool:
        return name in available_models()


_MODELS = _Backbones()


def _download(url: str, root: str | None = None) -> str:
    """Return the file of a value of `_MODELS`, for torch.jit.load (OpenAI's archives) or torch.load (all others).

    Files other than OpenAI's are written again, as tensors only, to `root` or a cache: $DASSL_CACHE/clip,
    $XDG_CACHE_HOME/dassl/clip, or ~/.cache/dassl/clip.

    Raises:
        UserError: no network and nothing cached, a missing or damaged file, weights of another kind.
    """
    for name in OPENAI:
        if url == _MODELS[name]:
            return str(fetch_openai(name))
    model = load_clip(url)
    # One file can be read with different configs: open_clip's names state which GELU it needs.
    key = hashlib.sha256(f"{model.weights_sha256} {model.config}".encode()).hexdigest()
    path = (Path(root) if root else cache_dir("clip")) / f"{key}.pt"
    if not path.is_file():
        data = io.BytesIO()
        torch.save({**model.state_dict(), **config_tensors(model.config)}, data)
        write_atomic(path, data.getvalue())
    return str(path)


def load(
    name: str, device: str | torch.device | None = None, jit: bool = False, download_root: str | None = None
) -> tuple[CLIP, object]:
    """Load a model (float32 on the CPU, half precision on a GPU), and the transform from a PIL image to its input.

    Raises:
        UserError: as `load_clip`; or `jit` is True.
    """
    if jit:
        raise UserError("clip.load: expected jit=False, since code in files is never executed, got True. Leave it out.")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    loaded = load_clip(name)
    model = build_model({**loaded.state_dict(), **config_tensors(loaded.config)})
    if device.type == "cpu":
        model.float()
    return model.to(device), _transform(model.visual.input_resolution, backbone_pixels(name) or OPENAI_PIXELS)


def _transform(n_px: int, pixels: tuple = OPENAI_PIXELS):
    """Return OpenAI's transform of PIL images to (3, n_px, n_px), with the mean and standard deviation in `pixels`."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    return Compose(
        [
            Resize(n_px, InterpolationMode.BICUBIC),
            CenterCrop(n_px),
            _rgb,
            ToTensor(),
            Normalize(*pixels),
        ]
    )


def _rgb(image):
    return image.convert("RGB")
