"""The files of a saved model: config.json (its description) and model.safetensors (its trained tensors).

A run's folder holds the same in model.json and in its checkpoints. A saved model may come from anywhere: both files are
checked, and nothing in them is executed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from basics import MissingFile, UserError, read_json, write_atomic, write_json
from dassl.engine.checkpoints import describe_content

CONFIG, TENSORS, BACKBONE = "config.json", "model.safetensors", "backbone"
RUN_CONFIG = "model.json"  # of a run's folder
Name = Annotated[str, Meta(min_length=1, max_length=1000)]
Setting = bool | int | float | str | list[Any]


class Calibration(Struct):
    """What was fitted on validation images.

    Attributes:
        temperature: what logits are divided by before the softmax.
        thresholds: {rule of `dassl.metrics.rejection`: the score below which a picture shows none of the classes}.
    """

    temperature: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    thresholds: dict[Literal["max_softmax", "energy"], float] = {}


class Description(Struct):
    """config.json or model.json; see `trainers.inference.describe`.

    Attributes:
        trained: what is known of the training, from results.json.
        calibration: the temperature and the rejection thresholds, if they were fitted.
    """

    format: Literal[1]
    method: Name
    checkpoint: Name
    classnames: Annotated[list[Name], Meta(min_length=1, max_length=10**6)]
    template: str
    weights_sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    settings: dict[str, Setting]
    class_texts: dict[str, list[str]] | None = None
    trained: dict[str, Any] | None = None
    calibration: Calibration | None = None


class RunResults(Struct):
    """The part of results.json that a saved model takes over."""

    calibration: Calibration | None = None


def read_description(path: Path) -> Description:
    """Read and check a description.

    Raises:
        MissingFile: there is none.
        UserError: it is damaged, or of another format.
    """
    try:
        found = msgspec.convert(read_json(path), Description)
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path}: expected the description of a model, got another content ({error}). Save or download it again."
        ) from error
    check_classnames(found.classnames, str(path))
    return found


def read_results(path: Path, description: Description) -> dict[str, Any]:
    """Read a run's results.json, and take its calibration over into the description.

    Raises:
        UserError: it is damaged.
    """
    results = read_json(path)
    try:
        description.calibration = msgspec.convert(results, RunResults).calibration
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path}: expected the results of a run, got another content ({error}). Run it again."
        ) from error
    return results


def check_classnames(classnames: list[str], source: str) -> None:
    """Refuse an empty list of class names, empty names, and names that occur twice.

    Raises:
        UserError: names the first such class.
    """
    if isinstance(classnames, str) or not classnames or not all(isinstance(name, str) for name in classnames):
        raise UserError(f"{source}: expected a list of class names, got {classnames!r}.")
    seen: set[str] = set()
    for name in classnames:
        if not name.strip():
            raise UserError(f"{source}: expected class names, got an empty one. Remove it.")
        if name in seen:
            raise UserError(f"{source}: expected distinct class names, got {name!r} twice. Remove one.")
        seen.add(name)


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run, not of a saved model."""
    return (folder / RUN_CONFIG).is_file()


def locate(path: str | Path) -> Path:
    """Find the folder of a saved model or a run: the path itself, or the folder of a file or checkpoint folder in it.

    Raises:
        MissingFile: there is nothing.
        UserError: it holds no model.
    """
    given = Path(os.path.expanduser(path))
    expected = f"expected the folder of a saved model ({CONFIG}) or of a run ({RUN_CONFIG}), or a checkpoint in it"
    if not given.exists():
        raise MissingFile(f"{given}: {expected}, got nothing. Check the path.")
    for folder in (given, *given.parents[:2]):
        if (folder / CONFIG).is_file() or is_run(folder):
            return folder
    if (given / "config.yaml").is_file():
        raise UserError(
            f"{given}: expected {RUN_CONFIG}, got a run without it. Run its train.py command again: it adds the "
            "file, and does not train again."
        )
    raise UserError(f"{given}: {expected}, got {describe_content(given)}.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read model.safetensors.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise MissingFile(
            f"{path}: expected the trained tensors of a model, got nothing. Save or download it again."
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: expected a safetensors file, got a damaged one or another ({error}). Save or download it again."
        ) from error


def backbone_file(folder: Path) -> Path | None:
    """Return the weights of the backbone in the folder of a saved model, a file or a folder, if they were included."""
    found = [*sorted(folder.glob(f"{BACKBONE}.*")), *filter(Path.is_dir, [folder / BACKBONE])]
    return next(iter(found), None)


def write_model(folder: Path, description: Description, tensors: dict[str, Tensor]) -> None:
    """Write both files of a saved model into a folder, creating it if needed."""
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(folder / TENSORS, save(contiguous, metadata={"format": "pt"}))
    write_json(msgspec.to_builtins(description), folder / CONFIG)
