"""Read the tensors of a backbone from its files. Nothing in a file is executed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from basics import UserError, sha256
from basics.tensors import Refused, read_tensors

from .archive import is_torchscript, read_torchscript
from .layouts import find_tensors, strip_prefix
from .open_clip_weights import published_hashes
from .tokenizer import VOCABULARY

NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}  # numbers next to the weights in OpenAI's archives
TABLE, ROWS = "token_embedding.weight", "token_embedding.rows"


def read(paths: Path | Sequence[Path], device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a file, or of the files among which they are divided, without what precedes their names.

    Args:
        device: "meta" reads only the shapes.

    Returns:
        The tensors, and the metadata of the file (empty unless it is a safetensors file).

    Raises:
        UserError: a file is missing, damaged, or not a file of tensors.
    """
    paths = [paths] if isinstance(paths, Path) else paths
    content: dict[str, object] = {}
    metadata: dict[str, str] = {}
    for path in paths:
        found, metadata = _read_file(path, device)
        content |= find_tensors(found)
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor) and v.layout == torch.strided}
    state = {k: v for k, v in strip_prefix(tensors, paths[0]).items() if k not in NOT_WEIGHTS}
    if "logit_scale" in state and state["logit_scale"].numel() == 1:
        state["logit_scale"] = state["logit_scale"].reshape(())  # a vector of one number in some files
    rows = state.pop(ROWS, None)
    if rows is not None and "rows_seed" in metadata:  # otherwise the vocabulary is refused for its size
        state[TABLE] = _all_rows(state, rows, metadata, paths[0])
    return state, metadata


def _read_file(path: Path, device: str) -> tuple[Any, dict[str, str]]:
    """Return the content, of an untrusted file, and its metadata."""
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
        return read_torchscript(path, device), {}
    try:
        return _read_safetensors(path, device) if path.suffix == ".safetensors" else (read_tensors(path, device), {})
    except Exception as error:  # each reader raises its own kinds
        reason = str(error) if isinstance(error, Refused) else f"it is damaged ({type(error).__name__})"
        raise UserError(
            f"{path}: expected tensors only (a .safetensors file or a plain state dict), but {reason}. Download or "
            f"create the file again."
        ) from error


def _read_safetensors(path: Path, device: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        if device == "meta":
            state = {k: torch.empty(file.get_slice(k).get_shape(), device=device) for k in file.keys()}
        else:
            state = {k: file.get_tensor(k) for k in file.keys()}
        return state, file.metadata() or {}


def _all_rows(state: dict[str, Tensor], rows: Tensor, metadata: dict[str, str], path: Path) -> Tensor:
    """Complete the embedding table: the stored rows, and rows sampled from the stored seed with the same spread."""
    try:
        used = state[TABLE]
        seed, std = int(metadata["rows_seed"]), float(metadata["rows_std"])
        vocab_size, width = json.loads(metadata["sizes"])["vocab_size"], used.shape[1]
        if used.is_meta:
            return used.new_empty(vocab_size, width)
        if vocab_size != VOCABULARY or rows.shape != used.shape[:1]:
            raise ValueError(f"a vocabulary of {vocab_size!r}, and numbers of {tuple(rows.shape)} rows")
        table = torch.randn(vocab_size, width, generator=torch.Generator().manual_seed(seed)) * std
        table[rows.long()] = used.float()
        return table
    except (KeyError, ValueError, IndexError, TypeError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)  # torch may add its stack
        raise UserError(
            f"{path}: expected metadata about the rows of the vocabulary, got {reason}. Create the file again."
        ) from error
