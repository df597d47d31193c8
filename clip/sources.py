"""Backbones by name: where the weights are, and what else is known about them.

A name is one of OpenAI's ("ViT-B/16"), one of open_clip's ("ViT-B-16/datacomp_xl_s13b_b90k", also with "open_clip:"
before it), a model on the Hugging Face Hub ("hf-hub:openai/clip-vit-base-patch16"), the path of a file or a folder, or
"tiny", the built-in model of the demo.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from basics import UserError, did_you_mean, read_json, sha256
from basics.hub import cache_unless, hub_answers

from . import open_clip_weights, transformers_weights
from .config import BackboneConfig, check_config
from .open_clip_weights import OPENAI, fetch_openai
from .tokenizer import VOCABULARY, simple_tokenizer
from .weight_files import read

TINY = Path(__file__).parent / "tiny" / "tiny.safetensors"
# Of the file that scripts/pretrain_tiny.py created; to be changed together with it.
TINY_SHA256 = "0c6b1cc9413a0eb3b0dc710e2c906c55541ff90becb9e2791a376717fe5640f9"

HUB_PREFIX = "hf-hub:"
VOCABULARIES = ("vocab.json", "tokenizer.json")
PART_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}\.|\.index\.json$")  # in the name of a file of transformers
ORDINARY = VOCABULARY - 2  # tokens other than the start and the end of a text, whose spelling differs between packages

Pixels = tuple[tuple[float, ...], tuple[float, ...]]
# Mean and standard deviation per channel of the pixels that OpenAI's models and the built-in one were trained on.
OPENAI_PIXELS: Pixels = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TINY_PIXELS: Pixels = (0.5, 0.5, 0.5), (0.27, 0.27, 0.27)


@dataclass(frozen=True)
class Source:
    """Where a backbone's weights are.

    Attributes:
        name: of the backbone, in messages.
        fetch: returns the files of the weights, downloaded if necessary: one, or those that share the tensors.
        config: the sizes that a configuration states; None if the tensors have to show them.
        pixels: mean and standard deviation per channel of the pixels that it was trained on; None if unknown.
        beside: files that state what the tensors do not show, {name: content}.
        names: what a copy of a single file is called next to those, {ending: name}.
        rows: of the token embedding in the files. Those after CLIP's vocabulary belong to tokens that are never used.
    """

    name: str
    fetch: Callable[[], list[Path]]
    config: BackboneConfig | None = None
    pixels: Pixels | None = None
    beside: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    rows: int = VOCABULARY


def available_models() -> list[str]:
    """List the backbones known by name."""
    return [*OPENAI, "tiny"]


def locate(name: str) -> Source:
    """Find a backbone by its name. No weights are loaded or downloaded, but small files of the Hub may be.

    Raises:
        UserError: unknown name, a model of another kind, no network and nothing cached, or a damaged file.
    """
    if not name:
        raise UserError(
            f"MODEL.BACKBONE.NAME: expected one of {', '.join(available_models())}, got none. Give --backbone or "
            f"--config-file."
        )
    if name == "tiny":
        return Source(name, lambda: [_checked_tiny()], pixels=TINY_PIXELS)
    if name in OPENAI:
        return Source(name, lambda: [fetch_openai(name)], open_clip_weights.openai_config(name), pixels=OPENAI_PIXELS)
    if name.startswith(HUB_PREFIX):
        return _folder(name, HubFolder(name))
    if not name.startswith(open_clip_weights.PREFIX):
        path = os.path.expanduser(name)
        if os.path.isfile(path):  # unlike pathlib's, it accepts any text
            return _file(Path(path))
        if os.path.isdir(path):
            return _folder(name, LocalFolder(Path(path)))
        if not open_clip_weights.knows(name):
            raise UserError(_unknown(name))
    return _open_clip(name)


def _unknown(name: str) -> str:
    hint = did_you_mean(name, available_models())
    if not hint and "/" in name:
        hint = _nearest_open_clip(name) or (
            f" If it is a model on the Hugging Face Hub, write {HUB_PREFIX}{name}." if name.count("/") == 1 else ""
        )
    return (
        f"MODEL.BACKBONE.NAME: expected one of {', '.join(available_models())}, a name of open_clip (MODEL/TAG), "
        f"{HUB_PREFIX}OWNER/MODEL, or an existing weights file (.safetensors or .pt) or folder, got {name!r}.{hint}"
    )


def _nearest_open_clip(name: str) -> str:
    import open_clip

    return did_you_mean(name, ["/".join(pair) for pair in open_clip.list_pretrained()])


def _checked_tiny() -> Path:
    if TINY.is_file() and sha256(TINY) != TINY_SHA256:
        raise UserError(f"{TINY}: expected SHA-256 {TINY_SHA256}, got another. Restore it from the repository.")
    return TINY


def _open_clip(name: str) -> Source:
    """Find published weights of open_clip, or a file that belongs to one of its models."""
    config, published, file, sizes = open_clip_weights.look_up(name)
    about: dict[str, Any] = {"model_cfg": config}
    pixels = None
    if published:
        pixels = published["mean"], published["std"]
        about["preprocess_cfg"] = {"mean": pixels[0], "std": pixels[1]}
    return Source(
        name,
        lambda: [open_clip_weights.fetch(name, published) if published else file],
        sizes,
        pixels,
        {open_clip_weights.CONFIG: json.dumps(about, indent=2).encode()},
        open_clip_weights.WEIGHTS,
    )


def _file(path: Path) -> Source:
    """Find a weights file. A configuration next to it counts if it is of the same format."""
    folder = LocalFolder(path.parent)
    if PART_OF_SEVERAL.search(path.name):
        return _folder(str(path), folder)
    if folder(open_clip_weights.CONFIG) or folder(transformers_weights.CONFIG):
        of_transformers = transformers_weights.recognizes(read(path, device="meta")[0])
        if folder(transformers_weights.CONFIG if of_transformers else open_clip_weights.CONFIG):
            return replace(_folder(str(path), folder, of_transformers), fetch=lambda: [path])
    return Source(str(path), lambda: [path])


class LocalFolder:
    """The files of a folder: name -> path, or None if there is no such file."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_file() else None

    def explain(self) -> str:
        """Return why a file may be missing."""
        return ""


class HubFolder:
    """The files of a repository on the Hugging Face Hub, downloaded on first use: name -> path, or None.

    Args:
        name: `hf-hub:OWNER/MODEL`, with `@REVISION` after it or not.
    """

    def __init__(self, name: str):
        self.name = name
        self.repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
        self.revision = revision or None
        self.unreachable: Exception | None = None

    @cached_property
    def answers(self) -> bool:
        """Whether the Hub can be reached."""
        return hub_answers()

    def __call__(self, name: str) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            with cache_unless(self.answers):
                return Path(hf_hub_download(self.repository, name, revision=self.revision))
        except LocalEntryNotFoundError as error:  # another file may be cached
            self.unreachable = error
            return None
        except EntryNotFoundError:
            return None
        except (OSError, ValueError) as error:  # which huggingface_hub's errors are
            raise UserError(
                f"{self.name}: expected a model on the Hugging Face Hub that can be read, got {_first_line(error)}. "
                "Check the name and, for a gated or private model, log in by `hf auth login`."
            ) from error

    def explain(self) -> str:
        """Return why a file may be missing."""
        if self.unreachable is None:
            return ""
        return (
            " The Hub cannot be reached, and its cache has no such file. Download the repository elsewhere, and give "
            "the path of its folder."
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


Folder = LocalFolder | HubFolder


def _folder(name: str, folder: Folder, of_transformers: bool | None = None) -> Source:
    """Find the model in a folder of open_clip or transformers.

    Args:
        of_transformers: which of the two; None for the one whose configuration is there.
    """
    other: list[Path] = []
    if not of_transformers and (path := folder(open_clip_weights.CONFIG)):
        content = read_json(path)
        config = open_clip_weights.read_config(content, f"{name}: {path.name}")
        names, pixels = open_clip_weights.WEIGHTS, _pixels(content.get("preprocess_cfg"), "mean", "std")
    elif path := folder(transformers_weights.CONFIG):
        config = transformers_weights.read_config(read_json(path), f"{name}: {path.name}")
        other = [file for file in map(folder, transformers_weights.PIXELS) if file][:1]
        content = read_json(other[0]) if other else {}
        content = content.get("image_processor", content) if isinstance(content, dict) else {}
        names, pixels = transformers_weights.WEIGHTS, _pixels(content, "image_mean", "image_std")
    else:
        raise UserError(
            f"{name}: expected {open_clip_weights.CONFIG} (open_clip) or {transformers_weights.CONFIG} (transformers) "
            f"and weights, got neither.{folder.explain() or ' Give the folder of such a model, or a weights file.'}"
        )
    check_config(config, f"{name}: {path.name}")
    rows = config.vocab_size
    if rows != VOCABULARY:
        vocabulary = next((file for file in map(folder, VOCABULARIES) if file), None)
        check_vocabulary(rows, name, vocabulary)
        other += [vocabulary] if vocabulary else []
        config = replace(config, vocab_size=VOCABULARY)
    beside = {file.name: file.read_bytes() for file in (path, *other)}
    return Source(name, lambda: _weights(name, folder, names), config, pixels, beside, names, rows)


def _weights(name: str, folder: Folder, names: dict[str, str]) -> list[Path]:
    """Return the weights files of a folder."""
    for file in names.values():
        if path := folder(file):
            return [path]
        if index := folder(file + transformers_weights.INDEX):
            return _shards(index, folder)
    raise UserError(
        f"{name}: expected {' or '.join(names.values())} next to the configuration, got neither."
        f"{folder.explain() or ' Download it too.'}"
    )


def _shards(index: Path, folder: Folder) -> list[Path]:
    content = read_json(index)
    stated = content.get("weight_map") if isinstance(content, dict) else None
    files = list(stated.values()) if isinstance(stated, dict) else []
    if not files or not all(isinstance(file, str) and re.fullmatch(r"\w[\w.-]*", file) for file in files):
        raise UserError(f"{index}: expected weight_map with names of files, got something else. Download it again.")
    paths = {file: folder(file) for file in sorted(set(files))}
    if missing := [file for file, path in paths.items() if path is None]:
        raise UserError(f"{index}: expected {', '.join(missing)} next to it, got nothing. Download all files.")
    return [path for path in paths.values() if path]


def _pixels(content: object, mean: str, std: str) -> Pixels | None:
    """Return the mean and the standard deviation per channel in a configuration; None if it has none."""
    given = [_numbers(content.get(key)) for key in (mean, std)] if isinstance(content, dict) else []
    return (given[0], given[1]) if given and all(given) and min(given[1]) > 0 else None


def _numbers(value: object) -> tuple[float, ...]:
    """Return three numbers; nothing if the value is another one."""
    numbers = [x for x in value if isinstance(x, int | float)] if isinstance(value, list) else []
    return tuple(map(float, numbers)) if len(numbers) == 3 else ()


def check_vocabulary(rows: int, source: object, vocabulary: Path | None = None) -> None:
    """Refuse a token embedding of other tokens than CLIP's, whose numbers our tokenizer does not know.

    Args:
        rows: of the token embedding.
        vocabulary: vocab.json or tokenizer.json, {token: row}.

    Raises:
        UserError: it has other rows, and no vocabulary shows that the first ones are CLIP's.
    """
    if rows == VOCABULARY or (vocabulary and rows > VOCABULARY and _begins_with_clips(read_json(vocabulary))):
        return
    shown = f"{vocabulary.name} lists other tokens" if vocabulary else "there is no vocab.json"
    raise UserError(
        f"{source}: expected a token embedding of {VOCABULARY} rows, the vocabulary of CLIP's byte-pair encoding, got "
        f"{rows}, and {shown}. Texts are encoded by CLIP's tokenizer alone. If the model's tokenizer is CLIP's with "
        "further tokens, give its folder with config.json and vocab.json; otherwise choose another backbone."
    )


def _begins_with_clips(content: object) -> bool:
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"].get("vocab")
    if not isinstance(content, dict):
        return False
    ours: dict[str, int] = simple_tokenizer().encoder
    return all(content.get(token) == row for token, row in ours.items() if row < ORDINARY)


def copy_names(source: Source, files: Sequence[Path]) -> list[str]:
    """Return what the copies of a backbone's files are called, so that they are found next to `source.beside`."""
    if len(files) > 1:
        return [file.name for file in files]
    return [source.names[".safetensors" if files[0].suffix == ".safetensors" else ".bin"]]
