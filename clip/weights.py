"""Load a backbone, and check its weights. All sizes come from the weights themselves or from the file next to them.

`clip.sources` lists the names of backbones. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from basics import UserError, notify, sha256, write_atomic

from . import transformers_weights
from .archive import is_torchscript
from .config import NOT_SHOWN, BackboneConfig, CLIPConfig, infer_config
from .layouts import WHAT_WORKS, explain_other_towers, heads
from .sources import OPENAI, Pixels, Source, available_models, check_vocabulary, copy_names, locate
from .tokenizer import VOCABULARY
from .towers import CLIP, LayerNorm
from .weight_files import NOT_WEIGHTS, TABLE, read

__all__ = ["NOT_WEIGHTS", "OPENAI", "available_models", "backbone_config", "load_clip", "read", "save_rows"]

FILE_FORMAT = "clip-1"
MOST_NAMES = 5  # of tensors in a message


def backbone_config(name: str) -> BackboneConfig:
    """Return the sizes of a backbone from its configuration or the shapes in its file. Load no weights.

    Raises:
        UserError: unknown name, a missing or damaged file, weights of another kind.
    """
    source = locate(name)
    return source.config or _read_backbone(source, source.fetch(), "meta")[1]


def backbone_pixels(name: str) -> Pixels | None:
    """Return mean and standard deviation per channel of a backbone's pixels; None if nothing states them.

    Raises:
        UserError: as `backbone_config`.
    """
    return locate(name).pixels


def load_clip(name: str, dtype: torch.dtype = torch.float32) -> CLIP:
    """Load a frozen CLIP in evaluation mode, on the CPU, with the SHA-256 of its weights as `weights_sha256`.

    Raises:
        UserError: unknown name, no network and nothing cached, a missing or damaged file, weights of another kind.
    """
    source = locate(name)
    files = source.fetch()
    state, config, metadata = _read_backbone(source, files)
    path = files[0]
    if source.config is None and "sizes" not in metadata and not is_torchscript(path):
        notify(
            f"note: {path} does not say which GELU it was trained with: QuickGELU is used, as in OpenAI's models. If "
            "open_clip trained it, give MODEL/FILE with open_clip's name of the model."
        )
    alone = source.config is None or (len(files) == 1 and _shows_alone(state, metadata, config))
    with torch.device("meta"):  # shapes only: skips the random initialization
        model = CLIP(config)
    expected = model.state_dict()
    add_counts(state, expected)
    if unused := heads(state.keys() - expected.keys()):
        notify(f"note: {path}: not used, because they belong to neither tower: {_few(unused)}")
        state = {k: v for k, v in state.items() if k not in unused}
    if source.rows > VOCABULARY and len(state[TABLE]) == source.rows:
        notify(f"note: {path}: not used: the {source.rows - VOCABULARY} tokens after CLIP's vocabulary")
        state[TABLE] = state[TABLE][:VOCABULARY].clone()
    _check_tensors(state, expected, f"{path}: expected the tensors of {name}")
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
    model.weights_sha256 = _digest(files, config, alone)
    return model.eval().requires_grad_(False)


def copy_backbone(name: str, folder: Path, stem: str) -> None:
    """Copy all files that a backbone needs into a folder: a file `stem` with its ending, or a folder `stem`.

    Raises:
        UserError: as `load_clip`.
    """
    source = locate(name)
    files = source.fetch()
    if not source.beside:
        shutil.copyfile(files[0], folder / f"{stem}{files[0].suffix}")
        return
    (folder / stem).mkdir(exist_ok=True)
    for file, copy in zip(files, copy_names(source, files), strict=True):
        shutil.copyfile(file, folder / stem / copy)
    beside = dict(source.beside)
    for index in (files[0].parent / f"{name}{transformers_weights.INDEX}" for name in source.names.values()):
        if len(files) > 1 and index.is_file():
            beside[index.name] = index.read_bytes()
    for file_name, content in beside.items():
        write_atomic(folder / stem / file_name, content)


def _read_backbone(
    source: Source, files: Sequence[Path], device: str = "cpu"
) -> tuple[dict[str, Tensor], BackboneConfig, dict[str, str]]:
    """Return the tensors by OpenAI's names, the sizes, and the metadata of the file."""
    path = files[0]
    state, metadata = read(files, device)
    if transformers_weights.recognizes(state):
        if source.config is None:
            raise UserError(
                f"{path}: expected {transformers_weights.CONFIG} next to it, because no tensor of transformers' format "
                "shows the heads and the activation, got none. Give the whole folder of the model."
            )
        state = transformers_weights.rename(state)
    try:
        if source.config is None:
            config = infer_config(state, metadata, path)
            check_vocabulary(config.vocab_size, path)
            return state, config, metadata
        known = {"sizes": json.dumps({key: getattr(source.config, key) for key in NOT_SHOWN})}
        shown = infer_config(state, known, path)
    except UserError as error:
        if towers := explain_other_towers(state):
            raise UserError(
                f"{path}: expected the two towers of OpenAI's models, got {towers}. {WHAT_WORKS}"
            ) from error
        raise
    _compare(source, shown, path)
    return state, source.config, metadata


def _compare(source: Source, shown: BackboneConfig, path: Path) -> None:
    """Refuse tensors of other sizes than the configuration states, before anything is built of these sizes."""
    stated = source.config
    assert stated is not None
    if isinstance(stated, CLIPConfig):  # an image may be larger than its patches cover
        stated = replace(stated, image_size=stated.image_size // stated.patch_size * stated.patch_size)
    stated = replace(stated, vocab_size=source.rows)
    differing = [
        f"{key} {getattr(shown, key, 'missing')} instead of {value}"
        for key, value in vars(stated).items()
        if vars(shown).get(key) != value
    ]
    if differing:
        raise UserError(
            f"{path}: expected the sizes of {source.name}, got {', '.join(differing)}. Give the weights that belong to "
            "this configuration."
        )


def _shows_alone(state: dict[str, Tensor], metadata: dict[str, str], config: BackboneConfig) -> bool:
    """Return whether a file shows these sizes without the configuration next to it."""
    try:
        return replace(infer_config(state, metadata, ""), vocab_size=config.vocab_size) == config
    except UserError:
        return False


def _digest(files: Sequence[Path], config: BackboneConfig, alone: bool) -> str:
    """Return the SHA-256 of everything that decides a backbone's features.

    It is that of the file if the file alone shows all sizes; otherwise that of the files' digests and the sizes.
    """
    if alone:
        return sha256(files[0])
    content = {"files": sorted(map(sha256, files)), "sizes": vars(config)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_tensors(state: dict[str, Tensor], expected: dict[str, Tensor], subject: str) -> None:
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
        towers = explain_other_towers(state)
        raise UserError(f"{subject}, got {_few(sorted(wrong))}.{f' It has {towers}. {WHAT_WORKS}' if towers else ''}")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def add_counts(state: dict[str, Tensor], expected: Iterable[str]) -> None:
    """Add the counts of the batch norms, which only training uses and some files leave out."""
    for key in expected:
        if key.endswith(".num_batches_tracked"):
            state.setdefault(key, torch.tensor(0))


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


def _sorted_metadata(data: bytes) -> bytes:
    """Sort the metadata of safetensors bytes by name, because safetensors writes it in a different order each time."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
