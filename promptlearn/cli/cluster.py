"""Options that say where runs run, for all commands that start several."""

import argparse
from collections.abc import Callable
from pathlib import Path

from basics import UserError, notify
from promptlearn.cli.parsing import integer_from
from promptlearn.experiments import Checkout, Job
from promptlearn.experiments.backends import Backend
from promptlearn.experiments.backends.resources import Resources, read_resources

PLACES = ("local", "slurm", "ray")
OPTIONS = ("partition", "minutes", "memory", "gpus", "cpus")  # those of `Resources`
# Options that not all places have.
ELSEWHERE = {
    **dict.fromkeys(("partition", "minutes", "detach"), ("slurm",)),
    **dict.fromkeys(("cluster", "memory", "gpus", "cpus"), ("slurm", "ray")),
    "address": ("ray",),
}


def add_cluster_options(add: Callable) -> None:
    """Add the options that `choose_backend` reads."""
    add("--on", choices=PLACES, default="local", help="where the runs run: on this machine, or on a cluster")
    add("--per-gpu", type=integer_from(1), default=1, metavar="N", help="runs that share a GPU here (default: 1)")
    add("--cluster", metavar="FILE", help="a yaml file with the options below, and `sbatch:` for further ones of Slurm")
    add("--address", metavar="HOST:PORT", help="of the Ray cluster, or auto (default: one of this machine)")
    add("--partition", metavar="NAME", help="Slurm's partition")
    add("--minutes", type=int, metavar="N", help="a run's time in one Slurm job; it then continues in the next one")
    add("--memory", metavar="16G", help="memory of each run")
    add("--gpus", type=gpus, metavar="N", help="GPUs of each run")
    add("--cpus", type=int, metavar="N", help="cores of each run (default: 1)")
    add("--detach", action="store_true", help="submit all runs and return; the same command collects the results")


def gpus(text: str) -> float:
    """Return a number of GPUs, as an argparse type: whole, or a fraction."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def resources_of(args: argparse.Namespace) -> Resources:
    """Return what each run gets on a cluster."""
    return read_resources(args.cluster, {**{key: getattr(args, key) for key in OPTIONS}, "parallel": args.jobs})


def choose_backend(checkout: Checkout, data: Path | None, output: Path, args: argparse.Namespace) -> Backend:
    """Return the backend that the arguments ask for, and import only that one.

    Raises:
        UserError: it is not installed or not here, or its options are wrong or those of another one.
    """
    for key, places in ELSEWHERE.items():
        if getattr(args, key) and args.on not in places:
            expected = " or ".join(f"--on {place}" for place in places)
            raise UserError(f"--{key}: expected {expected}, got --on {args.on}. Correct --on, or leave the option out.")
    if args.on == "local":
        from promptlearn.experiments.backends.local import LocalBackend

        return LocalBackend(checkout, data, args.verbose, args.jobs, args.per_gpu)
    if args.on == "ray":
        from promptlearn.experiments.backends.ray_cluster import RayBackend

        return RayBackend(checkout, data, output, resources_of(args), args.address)
    from promptlearn.experiments.backends.slurm import SlurmBackend

    return SlurmBackend(checkout, data, output, resources_of(args))


def detach(jobs: list[Job], checkout: Checkout, data: Path | None, output: Path, args: argparse.Namespace) -> int:
    """Submit all unfinished jobs, say what is where, and return the exit status."""
    backend = choose_backend(checkout, data, output, args)
    from promptlearn.experiments.backends.slurm import SlurmBackend, submit_all

    assert isinstance(backend, SlurmBackend)  # `choose_backend` refuses --detach elsewhere
    submitted = submit_all(jobs, backend)
    notify(
        f"{submitted} runs submitted to Slurm, {len(backend.runs) - submitted} are there since earlier. See them with "
        "squeue, cancel them with scancel, and run the same command without --detach to collect the results."
    )
    return 0
