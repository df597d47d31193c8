"""Find, check and read the weights of a backbone. All sizes come from the weights themselves.

The name of a backbone is one of OpenAI's ("ViT-B/16"), one of open_clip's ("open_clip:ViT-B-16/datacomp_xl_s13b_b90k"),
the path of a file (safetensors, a plain state dict, or OpenAI's archive), or "tiny", the built-in model of the demo.
Nothing in a file is executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from basics import UserError, did_you_mean, sha256
from basics.tensors import Refused, read_tensors

from . import open_clip_weights
from .archive import is_torchscript, read_torchscript
from .config import CLIPConfig, ResNetConfig, infer_config
from .tokenizer import simple_tokenizer
from .towers import CLIP, LayerNorm

TINY = Path(__file__).parent / "tiny" / "tiny.safetensors"
# Of the file that scripts/pretrain_tiny.py created; to be changed together with it.
TINY_SHA256 = "0c6b1cc9413a0eb3b0dc710e2c906c55541ff90becb9e2791a376717fe5640f9"

# OpenAI's names for its models -> open_clip's.
OPENAI = {
    **{name: name for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")},
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}  # numbers next to the weights in OpenAI's archives
FILE_FORMAT = "clip-1"


def available_models() -> list[str]:
    """List the backbones known by name."""
    return [*OPENAI, "tiny"]


def backbone_config(name: str) -> CLIPConfig | ResNetConfig:
    """Read the sizes of a backbone from open_clip's configurations or the shapes in a file. Load no weights.

    Raises:
        UserError: unknown name, a missing or damaged file, weights of another kind.
    """
    if name.startswith(open_clip_weights.PREFIX):
        return open_clip_weights.look_up(name)[-1]
    if name in OPENAI:
        from open_clip import get_model_config  # takes seconds

        return open_clip_weights.config_from_open_clip(get_model_config(OPENAI[name]), "quick_gelu", name)
    path = find(name)
    return infer_config(*read(path, device="meta"), path)


def load_clip(name: str, dtype: torch.dtype = torch.float32) -> CLIP:
    """Load a frozen CLIP in evaluation mode, on the CPU, with the SHA-256 of its file as `weights_sha256`.

    Raises:
        UserError: unknown name, no network and nothing cached, a missing or damaged file, weights of another kind.
    """
    if name.startswith(open_clip_weights.PREFIX):
        path, config = open_clip_weights.locate(name)
        state, _ = read(path)
    else:
        path = find(name)
        state, metadata = read(path)
        config = infer_config(state, metadata, path)
    with torch.device("meta"):  # shapes only: skips the random initialization
        model = CLIP(config)
    expected = model.state_dict()
    add_counts(state, expected)
    wrong = [f"{k} (missing)" for k in expected.keys() - state.keys()]
    wrong += [f"{k} (unexpected)" for k in state.keys() - expected.keys()]
    wrong += [
        f"{k} (expected {tuple(expected[k].shape)}, got {tuple(state[k].shape)})"
        for k in expected.keys() & state.keys()
        if state[k].shape != expected[k].shape
    ]
    wrong += [
        f"{k} (expected {expected[k].dtype}, got {state[k].dtype})"
        for k in expected.keys() & state.keys()
        if state[k].is_floating_point() != expected[k].is_floating_point()
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(f"{path}: expected the tensors of {name}, got {', '.join(sorted(wrong)[:5])}{more}.")
    norms = {name for name, module in model.named_modules() if isinstance(module, LayerNorm | nn.BatchNorm2d)}
    for key, value in state.items():
        if value.is_floating_point():  # norms and scale are computed in float32 whatever the precision of the towers
            exact = key == "logit_scale" or key.rpartition(".")[0] in norms
            state[key] = value = value.to(torch.float32 if exact else dtype)
            if not value.isfinite().all():
                raise UserError(
                    f"{path}: expected finite numbers, got NaN or infinite ones of {value.dtype} in {key}. Download or "
                    f"create the file again, or choose a precision with a wider range."
                )
    model.load_state_dict(state, assign=True)
    model.weights_sha256 = sha256(path)
    return model.eval().requires_grad_(False)


def add_counts(state: dict[str, Tensor], expected: Iterable[str]) -> None:
    """Add the counts of the batch norms, which only training uses and some files leave out."""
    for key in expected:
        if key.endswith(".num_batches_tracked"):
            state.setdefault(key, torch.tensor(0))


def find(name: str) -> Path:
    """Return the file of a backbone, downloaded (and verified) by open_clip if necessary.

    Raises:
        UserError: unknown name, no network and nothing cached, or a damaged built-in file.
    """
    if not name:
        raise UserError(
            f"MODEL.BACKBONE.NAME: expected one of {', '.join(available_models())}, got none. Give --backbone or "
            f"--config-file."
        )
    if name == "tiny":
        if TINY.is_file() and sha256(TINY) != TINY_SHA256:
            raise UserError(f"{TINY}: expected SHA-256 {TINY_SHA256}, got another. Restore it from the repository.")
        return TINY
    if name in OPENAI:
        return fetch_openai(name)
    path = os.path.expanduser(name)
    if os.path.isfile(path):  # unlike pathlib's, it accepts any text
        return Path(path)
    raise UserError(
        f"MODEL.BACKBONE.NAME: expected one of {', '.join(available_models())}, {open_clip_weights.PREFIX}MODEL/TAG, "
        f"or an existing weights file (.safetensors or .pt), got {name!r}.{did_you_mean(name, available_models())}"
    )


def fetch_openai(name: str) -> Path:
    """Fetch OpenAI's archive into open_clip's cache; verify its SHA-256 now and at each later use.

    Raises:
        UserError: no network and nothing cached.
    """
    from open_clip.pretrained import download_pretrained_from_url, get_pretrained_url  # takes seconds

    url = get_pretrained_url(OPENAI[name], "openai")
    try:
        return Path(download_pretrained_from_url(url))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{name}: expected its weights from {url} or in ~/.cache/clip, got: {error}. Download the file elsewhere "
            f"into ~/.cache/clip, or give its path as MODEL.BACKBONE.NAME."
        ) from error


def published_hashes() -> set[str]:
    """Return the SHA-256 of OpenAI's archives, which are part of their URLs."""
    from open_clip.pretrained import get_pretrained_url

    return {get_pretrained_url(model, "openai").split("/")[-2] for model in OPENAI.values()}


def read(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors, by OpenAI's names, and the metadata of the file (empty unless it is a safetensors file).

    Args:
        device: "meta" reads only the shapes.

    Raises:
        UserError: the file is missing, damaged, or not a file of tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a weights file, got none. Restore it, or give another MODEL.BACKBONE.NAME.")
    try:
        archive = is_torchscript(path)
    except Exception as error:  # a damaged table of contents raises nearly anything
        raise UserError(f"{path}: damaged ({type(error).__name__}). Download or create the file again.") from error
    if archive:
        if sha256(path) not in published_hashes():
            raise UserError(
                f"{path}: expected a .safetensors file, a plain state dict, or an archive that OpenAI published, got a "
                f"TorchScript archive with an unknown SHA-256. Convert it where it was created."
            )
        return {k: v for k, v in read_torchscript(path, device).items() if k not in NOT_WEIGHTS}, {}
    content: Any  # of an untrusted file
    try:
        if path.suffix == ".safetensors":
            content, metadata = _read_safetensors(path, device)
        else:
            content, metadata = read_tensors(path, device), {}
    except Exception as error:  # each reader raises its own kinds
        reason = str(error) if isinstance(error, Refused) else f"it is damaged ({type(error).__name__})"
        raise UserError(
            f"{path}: expected tensors only (a .safetensors file or a plain state dict), but {reason}. Download or "
            f"create the file again."
        ) from error
    tensors = content.get("state_dict", content) if isinstance(content, dict) else {}
    state = {k.removeprefix("module."): v for k, v in tensors.items() if _is_dense(v) and k not in NOT_WEIGHTS}
    if "logit_scale" in state and state["logit_scale"].numel() == 1:
        state["logit_scale"] = state["logit_scale"].reshape(())  # a vector of one number in some files
    if "token_embedding.rows" in state:
        state["token_embedding.weight"] = _all_rows(state, metadata, path)
    return state, metadata


def _is_dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def save_rows(model: CLIP, rows: Tensor, rows_seed: int, **metadata: str) -> bytes:
    """Encode a CLIP as half-precision safetensors bytes with only those rows of the token embedding that are in use.

    Args:
        rows: (R,) token numbers that were trained. The other rows are sampled from `rows_seed` when the file is read.
        metadata: further entries of the file's metadata.

    Raises:
        UserError: the weights are not finite in half precision.
    """
    state = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    used = model.token_embedding.weight.detach()[rows]
    state["token_embedding.weight"], state["token_embedding.rows"] = used.half().contiguous(), rows.int()
    if not all(v.isfinite().all() for v in state.values()):
        raise UserError("weights: expected finite numbers in half precision, got NaN or infinity. Train again.")
    sizes = {k: getattr(model.config, k) for k in ("vision_heads", "text_heads", "activation", "vocab_size")}
    data = save(
        state,
        metadata={
            "format": FILE_FORMAT,
            "sizes": json.dumps(sizes),
            "rows_seed": str(rows_seed),
            "rows_std": repr(float(used.std())),
            **metadata,
        },
    )
    return _sorted_metadata(data)


def _read_safetensors(path: Path, device: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        if device == "meta":
            state = {k: torch.empty(file.get_slice(k).get_shape(), device=device) for k in file.keys()}
        else:
            state = {k: file.get_tensor(k) for k in file.keys()}
        return state, file.metadata() or {}


def _all_rows(state: dict[str, Tensor], metadata: dict[str, str], path: Path) -> Tensor:
    """Complete the embedding table: the stored rows, and rows sampled from the stored seed with the same spread."""
    try:
        used, rows = state.pop("token_embedding.weight"), state.pop("token_embedding.rows")
        seed, std = int(metadata["rows_seed"]), float(metadata["rows_std"])
        vocab_size, width = json.loads(metadata["sizes"])["vocab_size"], used.shape[1]
        if used.is_meta:
            return used.new_empty(vocab_size, width)
        if vocab_size != simple_tokenizer().vocab_size or rows.shape != used.shape[:1]:
            raise ValueError(f"a vocabulary of {vocab_size!r}, and numbers of {tuple(rows.shape)} rows")
        table = torch.randn(vocab_size, width, generator=torch.Generator().manual_seed(seed)) * std
        table[rows.long()] = used.float()
        return table
    except (KeyError, ValueError, IndexError, TypeError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)  # torch may add its stack
        raise UserError(
            f"{path}: expected metadata about the rows of the vocabulary, got {reason}. Create the file again."
        ) from error


def _sorted_metadata(data: bytes) -> bytes:
    """Sort the metadata of safetensors bytes by name, because safetensors writes it in a different order each time."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
