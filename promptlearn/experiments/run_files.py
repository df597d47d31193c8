"""Reads the files of runs. They may come from anywhere, so what does not fit the schema is reported and left out."""

import csv
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from basics import UserError, notify
from basics.csv_files import read_csv

LARGEST_JSON = 2**26  # bytes
LONGEST_REASON = 200  # characters
PREDICTION = ("impath", "label", "predicted", "confidence", "classname", "predicted_classname")

Percent = Annotated[float, Meta(ge=0, le=100)]
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Count = Annotated[int, Meta(ge=0, le=10**15)]
Schema = TypeVar("Schema")


class ClassResult(Struct):
    accuracy: Percent


class Metrics(Struct):
    accuracy: Percent
    ece: Percent | None = None
    n: Count | None = None
    per_class: dict[str, ClassResult] = {}


class CalibrationResult(Struct):
    temperature: Amount
    test_ece_after: Percent | None = None


class Separation(Struct):
    auroc: Percent
    fpr95: Percent


class Unknowns(Struct):
    max_softmax: Separation
    energy: Separation


class Result(Struct):
    """results.json, as far as tables and the report read it. Keys of other versions may be missing or more."""

    format: Literal[1]
    status: str
    trainer: str
    dataset: str
    subsample: str
    shots: int
    seed: Annotated[int, Meta(ge=0)]
    metrics: Metrics | None
    calibration: CalibrationResult | None = None
    unknowns: Unknowns | None = None
    train_fraction: Annotated[float, Meta(gt=0, le=1)] = 1.0
    backbone: str | None = None
    dataset_dir: str | None = None
    prompts_sha256: str | None = None
    draw_hash: str | None = None
    data_sha256: dict[str, str] = {}
    weights_sha256: str | None = None
    trained_parameters: Count | None = None
    gflop: dict[str, Amount | None] | None = None
    device: str | None = None
    versions: dict[str, str | None] | None = None
    seconds: dict[str, Amount | None] | None = None
    peak_memory_mib: Amount | None = None
    config: dict[str, Any] = {}


class TracedSegment(Struct):
    name: str
    tokens: Annotated[int, Meta(ge=0, le=10**5)]
    attends_to: list[str]
    causal: bool
    learned: Annotated[list[bool], Meta(max_length=10**5)]
    replaced: Count
    rewritten: list[Count]
    prefilled: bool
    first_layer: Count = 0


class Tower(Struct):
    layers: Count
    scenes: list[list[TracedSegment]]


class Word(Struct):
    vector: str
    norm: Amount
    words: list[tuple[str, Amount]]


class ExplanationFile(Struct):
    """explain.json."""

    format: int
    prompts_sha256: str
    towers: dict[Literal["text", "image"], Tower]
    words: list[Word]


damaged: dict[Path, str] = {}  # the files that could not be used, and why; each is reported once
_kept: dict[Path, dict] | None = None  # inside `read_once`: the content of the results.json files


def report_damage(path: Path, reason: object) -> None:
    """Print a line about a file that is left out."""
    text = " ".join(str(reason).split())[:LONGEST_REASON].encode(errors="replace").decode()
    if path not in damaged:
        notify(f"{path}: expected a file of a run, got a damaged one: {text}. It is left out.")
    damaged[path] = text


def read_checked(path: Path, schema: type[Schema]) -> dict | None:
    """Read a JSON file of a run; None if there is none, or if it is damaged, which is reported."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UserError("it is not a regular file")
        if status.st_size > LARGEST_JSON:
            raise UserError(f"it has more than {LARGEST_JSON >> 20} MiB")
        content = path.read_bytes()
        msgspec.json.decode(content, type=schema)
        found: dict = json.loads(content)
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, UserError, RecursionError) as error:
        report_damage(path, error)
        return None


@contextmanager
def read_once() -> Iterator[None]:
    """Read each results.json once inside: for commands that only read finished runs."""
    global _kept
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def read_result_file(path: Path) -> dict | None:
    """Read a results.json as `read_checked` does. The result is shared: copy it to change it."""
    if _kept is not None and path in _kept:
        return _kept[path]
    result = read_checked(path, Result)
    if _kept is not None and result is not None:
        _kept[path] = result
    return result


def read_predictions(path: Path) -> list[dict]:
    """Read predictions.csv; empty if there is none, or if it is damaged, which is reported."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")
        rows = read_csv(path)
        for number, row in enumerate(rows, start=2):
            if None in row or any(row.get(key) is None for key in PREDICTION):
                raise ValueError(f"line {number} does not have the columns {', '.join(PREDICTION)}")
            int(row["label"]), int(row["predicted"])
            if not 0 <= float(row["confidence"]) <= 1:
                raise ValueError(f"line {number} has a confidence of {row['confidence']}")
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        report_damage(path, error)
        return []


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read metrics.csv, a row per epoch; empty if there is none, or if it is damaged, which is reported."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")
        rows = [{key: float(value) for key, value in row.items() if value} for row in read_csv(path)]
        if not all("epoch" in row and all(map(math.isfinite, row.values())) for row in rows):
            raise ValueError("it has a row without an epoch, or a figure that is not finite")
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, csv.Error) as error:
        report_damage(path, error)
        return []
