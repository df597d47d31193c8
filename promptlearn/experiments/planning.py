"""Turns a request into a list of jobs: checks names, and fills gaps from configs/protocols/."""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from basics import UserError, known_spelling
from promptlearn.experiments.checkout import Checkout, refuse_unknown
from promptlearn.experiments.protocols import UNTRAINED, ZERO_SHOT, Job, Protocol, Row, jobs_of
from promptlearn.experiments.requested_datasets import (
    RequestedDataset,
    by_name,
    check_datasets,
    choose_dataset,
    is_demo,
)
from promptlearn.experiments.shots import Shots, describe_shots, parse_shots, shots_order

Overrides = tuple[tuple[str, str], ...]  # (key, value)


@dataclass
class RunRequest:
    """What a user requests; None: the protocol file's value."""

    trainers: list[str] | None = None  # methods, groups of them, or "all"
    datasets: list[str] | None = None  # for a transfer: the targets; see requested_datasets.py
    source: str | None = None  # for a transfer: the dataset to train on, likewise
    seeds: list[int] | None = None
    shots: list[Shots] | None = None
    config: str | None = None
    vary: dict[str, list] | None = None  # key -> values: every combination is a variant


def plan(
    protocol: Protocol, checkout: Checkout, output: Path, data: Path | None = None, request: RunRequest | None = None
) -> list[Job]:
    """Plan all jobs of a comparison, zero-shot CLIP first. On built-in datasets without `data`, it is the demo.

    Raises UserError for names that do not exist and for pictures that cannot be used, before any job is started.
    """
    request = request or RunRequest()
    chosen = [choose_dataset(word, checkout) for word in request.datasets or ()]
    source = choose_dataset(request.source, checkout, "--source") if request.source else None
    demo = is_demo([*chosen, *([source] if source else [])], data)
    settings = checkout.settings(protocol.name, demo)
    requested = members(request.trainers or settings["trainers"], settings["groups"])
    trainers = unique([ZERO_SHOT, *(known_spelling(name, checkout.trainers()) for name in requested)])
    seeds = unique(settings["seeds"] if request.seeds is None else request.seeds)
    shots = unique(request.shots or several_shots(settings["shots"], f"shots of {protocol.name}"))
    refuse_unknown("trainer", trainers, [*checkout.trainers(), *settings["groups"], "all"])
    configs = {name: configs_of(checkout, name, request.config, settings["configs"].get(name)) for name in trainers}
    chosen = chosen or [choose_dataset(word, checkout) for word in settings["datasets"]]
    if protocol.transfer:
        source = source or choose_dataset(settings["source"], checkout)
    datasets = by_name([*([source] if source else []), *chosen])
    check_datasets(datasets.values(), protocol.tests_halves, checkout, output, data, settings["builtin"])
    stages = protocol.on(unique(dataset.name for dataset in chosen)) if protocol.transfer else protocol.stages

    jobs = []
    for dataset in [source] if source else datasets.values():
        for trainer in trainers:
            grids = [request.vary] if request.vary else settings["variants"].get(trainer, [{}])
            prompts = settings["prompts"].get(trainer)
            for row, overrides in rows_of(trainer, dataset, configs[trainer], grids, shots):
                for seed in [1] if trainer in UNTRAINED else seeds:
                    jobs += jobs_of(stages, row, seed, output, datasets, overrides, prompts)
    return jobs


def members(names: list[str], groups: dict[str, list[str]]) -> list[str]:
    """Replace the names of groups by the methods in them."""
    groups = {**groups, "all": [method for group in groups.values() for method in group]}
    return [method for name in names for method in groups.get(name, [name])]


def several_shots(given: object, source: str) -> list[Shots]:
    """Parse the shots in a file: a list, or a single value."""
    return [parse_shots(n, source) for n in (given if isinstance(given, list) else [given])]


def rows_of(
    trainer: str, dataset: RequestedDataset, configs: dict[Shots, str], grids: list[dict[str, list]], shots: list[Shots]
) -> Iterator[tuple[Row, Overrides]]:
    """Yield a method's rows on a dataset, with what differs from the config; a single row if it trains nothing."""
    fixed = trainer in UNTRAINED
    for label, overrides in [("", ())] if fixed else variants(grids):
        for n in [max(shots, key=shots_order)] if fixed else shots:
            yield Row(dataset.name, trainer, choose_config(configs, dataset.key, n), n, label), overrides


def variants(grids: list[dict[str, list]]) -> list[tuple[str, Overrides]]:
    """Return (label, overrides) of every combination of every grid; an empty grid is the unchanged config."""
    found = {}
    for grid in grids:
        for values in itertools.product(*grid.values()):
            overrides = tuple((key, str(value)) for key, value in zip(grid, values, strict=True))
            found[label_of(overrides)] = overrides
    return list(found.items())


def label_of(settings: Iterable[tuple[str, str]]) -> str:
    """Format settings as a part of a folder's name: LR=0.01,K=4."""
    return ",".join(f"{key.rpartition('.')[2]}={shown(value)}" for key, value in settings)


def shown(value: str) -> str:
    """Format a setting as a part of a folder's name: [1, 2] -> 1-2, and -1 -> -1."""
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"^[^\w.+-]+|[^\w.+-]+$", "", value)) or "none"


def configs_of(checkout: Checkout, trainer: str, requested: str | None, default) -> dict[Shots, str]:
    """Return the configs of a method, by dataset, by shots, and under "default".

    Zero-shot CLIP, which is included for comparison, keeps its own if it has none of the requested name.

    Args:
        requested: the user's config, for all runs.
        default: the protocol's: one name, or {dataset, shots (16, "10%", or "all"), or "default": name}.
    """
    known = checkout.configs(trainer)
    if requested and not (trainer == ZERO_SHOT and requested not in known):
        refuse_unknown(f"config of {trainer}", [requested], known)
        return {"default": requested}
    if default is None:
        raise UserError(f"--config: expected one of {', '.join(known) or 'none'} for {trainer}, got none.")
    configs: dict[Shots, str] = {}
    for key, name in (default if isinstance(default, dict) else {"default": default}).items():
        try:
            configs[parse_shots(key)] = name
        except UserError:
            refuse_unknown(f"key in the configs of {trainer}:", [key], [*checkout.datasets(), "default"])
            configs[key] = name
    refuse_unknown(f"config of {trainer}", list(configs.values()), known)
    return configs


def choose_config(configs: dict[Shots, str], dataset: str, shots: Shots) -> str:
    """Choose the config of a run: that of its dataset, or else of its shots, or else the default."""
    for key in (dataset, shots, "default"):
        if key in configs:
            return configs[key]
    raise UserError(
        f"configs: expected one for {dataset} with {describe_shots(shots)}, got only {configs}. Add a default."
    )


def explain_configs(jobs: list[Job]) -> list[str]:
    """Return one line per method: which config and which of its own texts its runs use, and where."""
    lines = []
    for trainer in unique(job.row.trainer for job in jobs):
        own = [job for job in jobs if job.row.trainer == trainer]
        configs: dict[str, dict[str, list[Shots]]] = {}  # config -> dataset -> shots
        for job in own:
            shots = configs.setdefault(job.row.config, {}).setdefault(job.row.dataset, [])
            shots += [] if job.shots in shots else [job.shots]
        parts = []
        for config, used in configs.items():
            where: dict[str, list[str]] = {}  # shots -> datasets
            for dataset, shots in used.items():
                where.setdefault(", ".join(map(describe_shots, shots)), []).append(dataset)
            places = [f"{', '.join(datasets)} ({shots})" for shots, datasets in where.items()]
            parts.append(config if len(configs) == 1 else f"{config} for {', '.join(places)}")
        texts = {job.dataset: text for job in own for key, text in job.overrides if key == "DATASET.PROMPT"}
        parts += [f"text for {dataset}: {text!r}" for dataset, text in texts.items()]
        lines.append(f"{trainer}: {'; '.join(parts)}")
    return lines


def unique(values) -> list:
    """Return the values without repetition, in their order."""
    return list(dict.fromkeys(values))
