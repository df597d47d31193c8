"""Datasets as users request them: a name, or pictures of their own.

A request is a file of configs/datasets/ without .yaml, a registered name, a folder of class folders, a CSV or split
file, or a yaml file as in configs/datasets/; NAME=REQUEST gives it another name.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from basics import UserError, keep_outside, notify
from dassl.config import flatten, get_cfg_default, merge, merge_valid, read_yaml
from promptlearn.experiments.checkout import Checkout, refuse_unknown, registered_name_in
from promptlearn.experiments.published import AVERAGE, H_OF_MEANS, H_OF_SEEDS, TARGETS

if TYPE_CHECKING:
    from dassl.data.datasets import DatasetBase

OWN = "image_folder"  # of configs/datasets/: pictures of the user's own
OWN_REGISTERED = "ImageFolder"
USABLE = re.compile(r"\w([\w.+ -]{0,58}[\w+-])?")  # a name: in folders and in tables
RESERVED = {name.casefold() for name in (AVERAGE, H_OF_MEANS, H_OF_SEEDS, TARGETS, "source")}  # of rows and columns
YAML, TABLES = (".yaml", ".yml"), (".csv", ".tsv", ".txt", ".json")
LEAST_CLASSES = 2  # with a single one, every prediction is correct


@dataclass(frozen=True)
class RequestedDataset:
    """A dataset of a protocol.

    Attributes:
        name: in folders of runs, tables, and reports.
        config: its yaml file, as an argument of train.py.
        registered_name: under which its runs report it.
        root: its DATASET.ROOT, such as a folder or a CSV file of the user's own pictures; None: the DATA folder, if it
            needs one.
    """

    name: str
    config: str
    registered_name: str
    root: Path | None = None

    @property
    def key(self) -> str:
        """Its name in configs/protocols/."""
        return Path(self.config).stem

    @property
    def is_own(self) -> bool:
        """Whether it consists of the user's own pictures."""
        return self.registered_name == OWN_REGISTERED


def choose_dataset(word: str, checkout: Checkout, option: str = "--datasets") -> RequestedDataset:
    """Return the dataset that a word requests.

    Raises:
        UserError: it requests nothing, or its name cannot be used; the message starts with `option`.
    """
    given, equals, request = word.partition("=")
    if not equals or "/" in given or Path(word).expanduser().exists():
        given, request = "", word
    if not request:
        raise UserError(f"{option}: expected a name or a path, got {word!r}.")
    known = checkout.datasets()
    if word in known:
        return _of_config(word, checkout)
    registered = {checkout.registered_name(name): name for name in known}
    path = Path(request).expanduser()
    if request in (*known, *registered):
        dataset = _of_config(registered.get(request, request), checkout)
    elif path.exists():
        dataset = _of_path(Path(os.path.abspath(path)), checkout)  # a link keeps its name
    elif given or "/" in request or path.suffix.lower() in YAML + TABLES:
        raise UserError(
            f"{option} {word}: expected a folder of class folders, a CSV file, a yaml file, or a file of "
            f"configs/datasets/ without .yaml, got {request}, which does not exist. Check the "
            "path."
        )
    else:
        refuse_unknown("dataset", [request], known)
    dataset = replace(dataset, name=given or dataset.name)
    if dataset.name in known and dataset.config == _config_file(dataset.name):
        return dataset
    problem = ""
    if dataset.name.casefold() in {each.casefold() for each in (*known, *registered)}:
        problem = "that no file of configs/datasets/ and no registered dataset has"
    elif not USABLE.fullmatch(dataset.name) or dataset.name.casefold() in RESERVED:
        problem = f"of at most 60 letters, digits, spaces, and . _ + -, and none of {', '.join(sorted(RESERVED))}"
    if problem:
        raise UserError(
            f"{option} {word}: expected a name {problem}, got {dataset.name!r}. Give another one: NAME={request}"
        )
    return dataset


def _config_file(name: str) -> str:
    return f"configs/datasets/{name}.yaml"


def _of_config(name: str, checkout: Checkout) -> RequestedDataset:
    return _of_yaml(name, checkout.config(f"datasets/{name}.yaml"), _config_file(name))


def _of_path(path: Path, checkout: Checkout) -> RequestedDataset:
    if path.is_file() and path.suffix.lower() in YAML:
        if path.stem in checkout.datasets() and path.samefile(checkout.config(f"datasets/{path.stem}.yaml")):
            return _of_config(path.stem, checkout)
        dataset = _of_yaml(path.stem, path, checkout.shown(path))
        _check_settings(path)
        return dataset
    return RequestedDataset(path.name if path.is_dir() else path.stem, _config_file(OWN), OWN_REGISTERED, path)


def _of_yaml(name: str, path: Path, argument: str) -> RequestedDataset:
    """Return the dataset of a yaml file; its DATASET.ROOT is relative to the current folder, as for train.py."""
    registered_name = registered_name_in(path)
    given = read_yaml(path)["DATASET"].get("ROOT")
    root = Path(os.path.abspath(os.path.expanduser(str(given)))) if given else None
    if root and not root.exists():
        raise UserError(
            f"{path}: DATASET.ROOT: expected a folder or a file, got {given}, which does not exist. Fix the path; it "
            "is relative to the current folder."
        )
    return RequestedDataset(name, argument, registered_name, root)


def _check_settings(path: Path) -> None:
    """Refuse keys and values that a run would refuse; those of the methods are left to the runs."""
    settings = flatten(read_yaml(path))
    words = [word for key, value in settings.items() if not key.startswith("TRAINER.") for word in (key, value)]
    if problems := merge_valid(get_cfg_default(), opts=words):
        raise UserError("\n".join(problem.replace("command line", str(path), 1) for problem in problems))


def by_name(datasets: Iterable[RequestedDataset]) -> dict[str, RequestedDataset]:
    """Return datasets by name, each once. Raises UserError if two have the same name."""
    found: dict[str, RequestedDataset] = {}
    for dataset in datasets:
        other = found.setdefault(dataset.name.casefold(), dataset)
        if other != dataset:
            places = [str(each.root or each.config) for each in (other, dataset)]
            raise UserError(
                f"--datasets: expected a name of its own for each dataset, got {dataset.name!r} for {places[0]} and "
                f"{places[1]}. Give one of them another: NAME={places[1]}"
            )
    return {dataset.name: dataset for dataset in found.values()}


def is_demo(datasets: Iterable[RequestedDataset], data: Path | None) -> bool:
    """Return whether a request is the built-in demo: without a DATA folder and without pictures of the user's own."""
    return not data and not any(dataset.root for dataset in datasets)


def check_datasets(
    datasets: Iterable[RequestedDataset],
    halves: bool,
    checkout: Checkout,
    output: Path,
    data: Path | None,
    builtin: list[str],
) -> None:
    """Check that the datasets are there. Read all pictures of the user's own ones, and print the notes on them.

    Args:
        halves: whether the base and the new classes are tested, and not only all of them.
        output: for the runs; never inside the pictures.
        builtin: the files of those that are built in.

    Raises:
        UserError: one has no pictures, cannot be read, or has too few classes.
    """
    without_data = {checkout.registered_name(name) for name in builtin}
    for dataset in datasets:
        if not (data or dataset.root or dataset.registered_name in without_data):
            raise UserError(
                f"--data: expected the folder with the images of {dataset.name}, got nothing. Give --data FOLDER "
                f"(DATA=FOLDER before a script), or choose a built-in dataset: {', '.join(builtin)}."
            )
        root = dataset.root or data
        if not root or not (dataset.root or dataset.is_own):
            continue
        if dataset.is_own:
            keep_outside(output, root, "--output")
        notes = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(notes):
            loaded = load_dataset(checkout, dataset.config, root)
        for line in notes.getvalue().splitlines():
            if line.startswith("Note: "):
                notify(f"{dataset.name}: {line}")
        count = loaded.num_classes
        if (count - math.ceil(count / 2) if halves else count) < LEAST_CLASSES:
            least = f"{2 * LEAST_CLASSES} classes, half of them base classes" if halves else f"{LEAST_CLASSES} classes"
            raise UserError(
                f"{dataset.name}: expected at least {least}, got {count} ({', '.join(loaded.classnames)}): with a "
                f"single one, every prediction is correct. Add classes{', or choose few_shot' * halves}."
            )


def load_dataset(
    checkout: Checkout, config: str, root: Path | None, settings: Iterable[tuple[str, str]] = ()
) -> DatasetBase:
    """Load all images of a dataset. Raises UserError where a run would, too.

    Args:
        config: its yaml file, as an argument of train.py.
        root: DATASET.ROOT; None: that of the file.
        settings: (key, value) of further settings.
    """
    from dassl.data.datasets import build_dataset  # imports torch

    checkout.load("datasets")
    cfg = get_cfg_default()
    merge(cfg, [checkout.file(config)], [word for setting in settings for word in setting])
    if root:
        cfg.DATASET.ROOT = str(root)
    return build_dataset(cfg)
