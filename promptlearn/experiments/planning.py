"""From what was asked for to a list of jobs: names checked, gaps filled from configs/protocols/."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from basics import UserError
from promptlearn.experiments.checkout import Checkout, refuse_unknown
from promptlearn.experiments.protocols import UNTRAINED, ZERO_SHOT, Job, Protocol, Row, jobs_of


@dataclass
class RunRequest:
    """What a user asks for; None: what the protocol's file says."""

    trainers: list[str] | None = None
    datasets: list[str] | None = None  # for a transfer: the targets
    source: str | None = None  # for a transfer: the dataset to train on
    seeds: list[int] | None = None
    shots: list[int] | None = None
    config: str | None = None
    vary: dict[str, list] | None = None  # key -> values: every combination is a variant


def plan(
    protocol: Protocol, checkout: Checkout, output: Path, data: Path | None = None, asked: RunRequest | None = None
) -> list[Job]:
    """All jobs of a comparison, zero-shot CLIP first. Without `data` it is the built-in demo.

    Raises UserError for every name that does not exist, before any job is started.
    """
    asked = asked or RunRequest()
    settings = checkout.settings(protocol.name, demo=not data)
    trainers = unique([ZERO_SHOT, *(asked.trainers or settings["trainers"])])
    datasets = unique(asked.datasets or settings["datasets"])
    seeds = unique(settings["seeds"] if asked.seeds is None else asked.seeds)
    shots = unique(asked.shots or settings["shots"])
    source = asked.source or settings["source"]

    refuse_unknown("trainer", trainers, checkout.trainers())
    used = unique([source, *datasets]) if protocol.transfer else datasets
    refuse_unknown("dataset", used, checkout.datasets())
    if not data:
        refuse_without_data(used, settings["builtin"])
    configs = {name: choose_config(checkout, name, asked.config, settings["configs"].get(name)) for name in trainers}
    names = {dataset: checkout.registered_name(dataset) for dataset in used}
    stages = protocol.on(datasets) if protocol.transfer else protocol.stages

    jobs = []
    for dataset in [source] if protocol.transfer else datasets:
        for trainer in trainers:
            fixed = trainer in UNTRAINED
            grids = [asked.vary] if asked.vary else settings["variants"].get(trainer, [{}])
            for label, overrides in [("", ())] if fixed else variants(grids):
                for n in [max(shots)] if fixed else shots:
                    row = Row(dataset, trainer, configs[trainer], n, label)
                    for seed in [1] if fixed else seeds:
                        jobs += jobs_of(stages, row, seed, output, names, overrides)
    return jobs


def variants(grids: list[dict[str, list]]) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """(label, overrides) of every combination of every grid; an empty grid is the config as it is."""
    found = {}
    for grid in grids:
        for values in itertools.product(*grid.values()):
            overrides = tuple((key, str(value)) for key, value in zip(grid, values, strict=True))
            found[",".join(f"{key.rpartition('.')[2]}={shown(value)}" for key, value in overrides)] = overrides
    return list(found.items())


def shown(value: str) -> str:
    """A setting as a part of a folder's name: [1, 2] -> 1-2."""
    return re.sub(r"[^\w.+-]+", "-", value).strip("-") or "none"


def refuse_without_data(datasets: list[str], builtin: list[str]) -> None:
    for dataset in datasets:
        if dataset not in builtin:
            raise UserError(
                f"{dataset} needs its image files: say where they are (DATA=FOLDER before a script, or "
                f"--data FOLDER). Without data there are: {', '.join(builtin)}"
            )


def choose_config(checkout: Checkout, trainer: str, asked: str | None, default: str | None) -> str:
    """The name of a method's config: the one asked for, or else the protocol's.

    Zero-shot CLIP, which is there for comparison, keeps its own when it has none of the name that was asked for.
    """
    known = checkout.configs(trainer)
    if asked and not (trainer == ZERO_SHOT and asked not in known):
        refuse_unknown(f"config of {trainer}", [asked], known)
        return asked
    if default is None:
        raise UserError(f"which config of {trainer}? Say --config NAME; there are: {', '.join(known) or 'none'}")
    refuse_unknown(f"config of {trainer}", [default], known)
    return default


def unique(values) -> list:
    """The values without repetition, in their order."""
    return list(dict.fromkeys(values))
