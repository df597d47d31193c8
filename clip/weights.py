"""Names -> weights: find, check, read. Every size comes from the weights themselves.

A backbone's name is one of OpenAI's ("ViT-B/16"), one of open_clip's ("open_clip:ViT-B-16/datacomp_xl_s13b_b90k"), a
file (safetensors, a plain state dict, or OpenAI's own archive), or "tiny", the built-in model of the demo. Nothing that
is read is executed.
"""

from __future__ import annotations

import difflib
import json
import os
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from basics import UserError, sha256

from . import open_clip_weights
from .archive import is_torchscript, read_torchscript
from .sizes import infer_config
from .tokenizer import simple_tokenizer
from .towers import CLIP, CLIPConfig, LayerNorm

if TYPE_CHECKING:
    from .resnet import ResNetConfig

TINY = Path(__file__).parent / "tiny" / "tiny.safetensors"
# Of the file that scripts/pretrain_tiny.py made; to be changed with it.
TINY_SHA256 = "0c6b1cc9413a0eb3b0dc710e2c906c55541ff90becb9e2791a376717fe5640f9"

# OpenAI's names of its models -> open_clip's.
OPENAI = {
    **{name: name for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")},
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
LONGEST_NAME = 100  # letters of a name that is not known, as far as it is looked at
NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}  # numbers that OpenAI's archives keep beside
FILE_FORMAT = "clip-1"


def available_models() -> list[str]:
    """The backbones known by name."""
    return [*OPENAI, "tiny"]


def backbone_config(name: str) -> CLIPConfig | ResNetConfig:
    """The sizes of a backbone, before any of its weights is loaded: off open_clip's configurations or a file's shapes.

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
    """A frozen CLIP in evaluation mode, on the CPU, with the file's SHA-256 as `weights_sha256`.

    Raises:
        UserError: unknown name, no network and nothing cached, a missing or damaged file, weights of another kind.
    """
    if name.startswith(open_clip_weights.PREFIX):
        path, sizes = open_clip_weights.locate(name)
        state, _ = read(path)
    else:
        path = find(name)
        state, metadata = read(path)
        sizes = infer_config(state, metadata, path)
    with torch.device("meta"):  # shapes only: no time spent on a random start
        model = CLIP(sizes)
    expected = model.state_dict()
    add_counts(state, expected)
    wrong = [f"{k} (missing)" for k in expected.keys() - state.keys()]
    wrong += [f"{k} (unexpected)" for k in state.keys() - expected.keys()]
    wrong += [
        f"{k} (expected {tuple(expected[k].shape)}, found {tuple(state[k].shape)})"
        for k in expected.keys() & state.keys()
        if state[k].shape != expected[k].shape
    ]
    wrong += [
        f"{k} (expected numbers of the kind {expected[k].dtype}, found {state[k].dtype}, {state[k].layout})"
        for k in expected.keys() & state.keys()
        if state[k].layout != torch.strided or state[k].is_floating_point() != expected[k].is_floating_point()
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(f"{path} does not hold the CLIP that is asked for: {', '.join(sorted(wrong)[:5])}{more}")
    norms = {name for name, module in model.named_modules() if isinstance(module, LayerNorm | nn.BatchNorm2d)}
    for key, value in state.items():
        if value.is_floating_point():  # norms and scale are computed in float32 whatever the towers' precision
            exact = key == "logit_scale" or key.rpartition(".")[0] in norms
            state[key] = value = value.to(torch.float32 if exact else dtype)
            if not value.isfinite().all():
                raise UserError(
                    f"{path}: {key} holds NaN or infinite numbers in {value.dtype}; expected finite ones: download or "
                    f"make the file again, or take a precision with a wider range"
                )
    model.load_state_dict(state, assign=True)
    model.weights_sha256 = sha256(path)
    return model.eval().requires_grad_(False)


def add_counts(state: dict[str, Tensor], expected: Iterable[str]) -> None:
    """Puts in the batch norms' counts, which only training uses and some files leave out."""
    for key in expected:
        if key.endswith(".num_batches_tracked"):
            state.setdefault(key, torch.tensor(0))


def find(name: str) -> Path:
    """The file that holds a backbone; downloaded through open_clip (and checked by it) where it must be."""
    if not name:
        raise UserError("no backbone given: --config-file, or --backbone with one of " + ", ".join(available_models()))
    if name == "tiny":
        if TINY.is_file() and sha256(TINY) != TINY_SHA256:
            raise UserError(f"{TINY} is damaged: expected SHA-256 {TINY_SHA256}; restore it from the repository")
        return TINY
    if name in OPENAI:
        return fetch_openai(name)
    path = os.path.expanduser(name)
    if os.path.isfile(path):  # unlike pathlib's it has an answer to any text
        return Path(path)
    near = difflib.get_close_matches(name[:LONGEST_NAME], available_models(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UserError(
        f"unknown backbone {name!r}{hint} Expected one of {', '.join(available_models())}, or a weights file "
        f"(.safetensors or .pt) that exists, or {open_clip_weights.PREFIX}MODEL/TAG"
    )


def fetch_openai(name: str) -> Path:
    """OpenAI's archive in open_clip's cache; its SHA-256 is checked after the download and at each later use."""
    from open_clip.pretrained import download_pretrained_from_url, get_pretrained_url  # takes seconds

    url = get_pretrained_url(OPENAI[name], "openai")
    try:
        return Path(download_pretrained_from_url(url))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the weights of {name} could not be fetched from {url}: {error}. Expected a network connection or a file "
            f"in the cache: download it elsewhere into ~/.cache/clip/, or give its path as MODEL.BACKBONE.NAME"
        ) from error


def published_hashes() -> set[str]:
    """SHA-256 of OpenAI's archives, which their addresses contain."""
    from open_clip.pretrained import get_pretrained_url

    return {get_pretrained_url(model, "openai").split("/")[-2] for model in OPENAI.values()}


def read(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by OpenAI's names, and the file's metadata (safetensors only).

    Args:
        device: "meta" reads the shapes alone.

    Raises:
        UserError: missing, damaged, or not a file of tensors.
    """
    if not path.is_file():
        raise UserError(f"weights file {path} is missing; give another MODEL.BACKBONE.NAME or restore the file")
    try:
        archive = is_torchscript(path)
    except Exception as error:  # a table of contents that lies
        raise UserError(f"weights file {path} cannot be read: {error}; download or make it again") from error
    if archive:
        if sha256(path) not in published_hashes():
            raise UserError(
                f"{path} is a TorchScript archive, but not one that OpenAI published (its SHA-256 is unknown); "
                f"expected OpenAI's own file, a .safetensors file or a plain state dict"
            )
        state = read_torchscript(path, device)
        return {k: v for k, v in state.items() if k not in NOT_WEIGHTS}, {}
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_zip(path, sums=device != "meta")
        if path.suffix == ".safetensors":
            state, metadata = _read_safetensors(path, device)
        else:
            mapped = zipped and device == "meta"  # so that the numbers stay on the disk
            with warnings.catch_warnings(action="ignore"):  # of torch, about what a stranger's file is like
                state, metadata = torch.load(path, map_location=device, weights_only=True, mmap=mapped), {}
    except Exception as error:  # each reader has its own kinds; whatever it is, the file is not readable
        kind = f"it is damaged or of another kind ({type(error).__name__})"
        reason = str(error) if isinstance(error, ValueError) else kind
        raise UserError(
            f"weights file {path} cannot be read: {reason}. Expected tensors only (a .safetensors file or a plain "
            f"state dict); download or make it again"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    state = {k.removeprefix("module."): v for k, v in state.items() if _is_dense(v) and k not in NOT_WEIGHTS}
    if "logit_scale" in state and state["logit_scale"].numel() == 1:
        state["logit_scale"] = state["logit_scale"].reshape(())  # some files hold a vector of one number
    if "token_embedding.rows" in state:
        state["token_embedding.weight"] = _all_rows(state, metadata, path)
    return state, metadata


def _is_dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def save_rows(model: CLIP, rows: Tensor, rows_seed: int, **metadata: str) -> bytes:
    """A CLIP as half-precision safetensors bytes that hold only the embedding rows in use.

    Args:
        rows: (R,) token numbers that were trained; the others are drawn again from `rows_seed` when read.
        metadata: what else the file should say of itself.
    """
    state = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    used = model.token_embedding.weight.detach()[rows]
    state["token_embedding.weight"], state["token_embedding.rows"] = used.half().contiguous(), rows.int()
    if not all(v.isfinite().all() for v in state.values()):
        raise UserError("the weights are not finite in half precision, so they were not saved; train again")
    sizes = {k: getattr(model.sizes, k) for k in ("vision_heads", "text_heads", "activation", "vocab_size")}
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


def _check_zip(path: Path, sums: bool) -> None:
    """Refuse what torch does not look for: records that unfold to more than the file, and wrong check sums."""
    with zipfile.ZipFile(path) as archive:
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise ValueError("its records are compressed, which torch.save does not do")
        if sums and (damaged := archive.testzip()):
            raise ValueError(f"the check sum of {damaged} is wrong")


def _read_safetensors(path: Path, device: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        if device == "meta":
            state = {k: torch.empty(file.get_slice(k).get_shape(), device=device) for k in file.keys()}
        else:
            state = {k: file.get_tensor(k) for k in file.keys()}
        return state, file.metadata() or {}


def _all_rows(state: dict[str, Tensor], metadata: dict[str, str], path: Path) -> Tensor:
    """The whole embedding table: stored rows, and rows of the same spread drawn from the stored seed."""
    try:
        used, rows = state.pop("token_embedding.weight"), state.pop("token_embedding.rows")
        seed, std = int(metadata["rows_seed"]), float(metadata["rows_std"])
        vocab_size, width = json.loads(metadata["sizes"])["vocab_size"], used.shape[1]
        if used.is_meta:
            return used.new_empty(vocab_size, width)
        if vocab_size != simple_tokenizer().vocab_size or rows.shape != used.shape[:1]:
            raise ValueError(f"a vocabulary of {vocab_size}, of which {tuple(rows.shape)} rows are stored")
        table = torch.randn(vocab_size, width, generator=torch.Generator().manual_seed(seed)) * std
        table[rows.long()] = used.float()
        return table
    except (KeyError, ValueError, IndexError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} does not say which rows of the vocabulary it holds: {error}; make it again") from error


def _sorted_metadata(data: bytes) -> bytes:
    """Safetensors bytes with their metadata in order of name; safetensors itself writes it in a new order each time."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
