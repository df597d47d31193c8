"""What a run gets on a cluster, from options of the command or from a yaml file with the same names."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from basics import UserError, did_you_mean
from dassl.config import read_yaml

HOURS = 4  # of a run, before it is continued in a new job


@dataclass(frozen=True)
class Resources:
    """What each run gets, and how many run at a time.

    Attributes:
        partition, sbatch: for Slurm: the partition (empty: the default one), and any further options of sbatch.
        minutes: a run's time limit on Slurm. Before it, the run saves its state and is put into the queue again.
        save_ahead: seconds before the limit at which it saves.
        memory: such as 16G; empty: the cluster's default.
        gpus: for each run; on Ray, it may be a fraction.
        cpus: for each run.
        parallel: runs at a time; 0: as many as the cluster starts.
    """

    partition: str = ""
    minutes: int = 60 * HOURS
    save_ahead: int = 120
    memory: str = ""
    gpus: float = 0
    cpus: int = 1
    parallel: int = 0
    sbatch: dict[str, Any] = field(default_factory=dict)


NUMBERS = {"minutes": 1, "save_ahead": 1, "gpus": 0, "cpus": 1, "parallel": 0}  # the least value of each


def read_resources(path: str | None, options: dict[str, Any]) -> Resources:
    """Return the resources that a yaml file and the options of a command give; options win.

    Args:
        options: by name; None is not given.

    Raises:
        UserError: a missing file, an unknown key, or a wrong value.
    """
    given = dict(read_yaml(path) or {}) if path else {}
    known = {f.name: f for f in fields(Resources)}
    for key in given:
        if key not in known:
            raise UserError(
                f"{path}: {key}: expected one of {', '.join(known)}, got an unknown key.{did_you_mean(key, known)}"
            )
    given |= {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        source = "--" + key.replace("_", "-") if options.get(key) is not None else f"{path}: {key}"
        if key in NUMBERS:
            kinds = (int, float) if key == "gpus" else (int,)
            if type(value) not in kinds or value < NUMBERS[key]:
                kind = "a number" if key == "gpus" else "a whole number"
                raise UserError(f"{source}: expected {kind} from {NUMBERS[key]}, got {value!r}. Correct it.")
        elif not isinstance(value, dict if key == "sbatch" else str):
            expected = "options of sbatch, one per line" if key == "sbatch" else "a text"
            raise UserError(f"{source}: expected {expected}, got {value!r}. Correct it.")
    return replace(Resources(), **given)
