"""`dassl base2new`, `dassl few_shot` and the other protocols: one command line for all."""

import argparse

from basics import UserError
from dassl.config import decode
from promptlearn.cli.common import add_run_options, folders_of, run_jobs
from promptlearn.cli.parsing import command_parser, integer_from
from promptlearn.experiments import Checkout, Protocol, RunRequest, plan, summarize, table
from promptlearn.experiments.shots import parse_shots

HELP = """\
{title}, for each method, dataset, number of training images, and seed. Zero-shot CLIP is always included.
The table covers all results in OUTPUT/{name}, and is also written there as summary.json and summary.csv.
Options left out take their values from configs/protocols/{name}.yaml and defaults.yaml.

The same command resumes an interrupted comparison: finished runs are skipped, interrupted runs resume from their last
saved state, and failed runs are tried again.

A dataset is a file of configs/datasets/ without .yaml, or your own: a folder of class folders, a CSV file, or a yaml
file like those of configs/datasets/. NAME=PATH names it in folders and tables. Nothing is written to your pictures.
"""


def run(protocol: Protocol, arguments: list[str]) -> int:
    args = parser(protocol).parse_args(arguments)
    checkout = Checkout(args.checkout)
    data, output = folders_of(args, checkout)
    request = RunRequest(
        args.trainers, args.datasets, args.source, args.seeds, args.shots, args.config, grid(args.vary)
    )
    jobs = plan(protocol, checkout, output, data, request)
    return run_jobs(
        protocol, jobs, checkout, output, data, args, show=lambda: table(protocol, summarize(protocol, jobs))
    )


def parser(protocol: Protocol) -> argparse.ArgumentParser:
    p = command_parser(
        protocol.name, HELP.format(title=protocol.title[0].upper() + protocol.title[1:], name=protocol.name)
    )
    add = p.add_argument
    add("--trainers", nargs="+", metavar="METHOD", help="folders of configs/trainers/, or prompts, adapters, "
        "cache, all")  # fmt: skip
    datasets = "the datasets to test on" if protocol.transfer else "datasets"
    add(
        "--datasets", nargs="*", metavar="DATASET", help=f"{datasets}: names of configs/datasets/, or paths of your own"
    )
    if protocol.transfer:
        add("--source", metavar="DATASET", help="the dataset to train on")
    add("--seeds", nargs="+", type=integer_from(0), metavar="S", help="one run each")
    add("--shots", nargs="+", type=parse_shots, metavar="N", help="training images per class, a percentage of them "
        "(10%%), or all; one run each")  # fmt: skip
    add("--config", metavar="NAME", help="a file of configs/trainers/METHOD/ without .yaml (default: the method's "
        "released one; in the demo tiny, the built-in CLIP)")  # fmt: skip
    add("--vary", nargs="+", action="append", metavar=("KEY", "VALUE"), help="try these values of a setting, such as "
        "TRAINER.RPO.K 4 8 24; repeated, every combination")  # fmt: skip
    add_run_options(add)
    p.set_defaults(source=None)
    return p


def grid(vary: list[list[str]] | None) -> dict[str, list] | None:
    """Convert [[KEY, VALUE, ...], ...] to {key: values}."""
    for key, *values in vary or []:
        if not values:
            raise UserError(f"--vary {key}: expected the values to try after the key, got none.")
    return {key: [decode(value) for value in values] for key, *values in vary} if vary else None
