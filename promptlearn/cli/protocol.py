"""`dassl base2new`, `dassl few_shot` and the other protocols: one command line for all."""

import argparse
import shlex
from pathlib import Path

from basics import UserError, mkdir_if_missing, notify
from dassl.config import decode
from promptlearn.cli.common import integer_from
from promptlearn.experiments import (
    Checkout,
    Job,
    Protocol,
    RunRequest,
    explain_configs,
    launch,
    plan,
    refuse_other_settings,
    result_of,
    summarize,
    table,
    unfair,
    write_summary,
)
from promptlearn.experiments.shots import parse_shots

DEMO_JOBS = 2  # its steps are too small for two threads: two runs side by side take little more time than one
HELP = """\
{title}, for each method, dataset, number of training images, and seed. Zero-shot CLIP is always included.
The table covers all results in OUTPUT/{name}, and is also written there as summary.json and summary.csv.
Options left out take their values from configs/protocols/{name}.yaml and defaults.yaml.

The same command resumes an interrupted comparison: finished runs are skipped, interrupted runs resume from their last
saved state, and failed runs are tried again.
"""


def run(protocol: Protocol, arguments: list[str]) -> int:
    args = parser(protocol).parse_args(arguments)
    checkout = Checkout(args.checkout)
    data = Path(args.data).expanduser().resolve() if args.data else None
    if data and not data.is_dir():
        raise UserError(f"--data: expected the folder that holds the datasets, got {args.data}, which is not a folder.")
    output = Path(args.output).expanduser().resolve() if args.output else checkout.root / "output"
    request = RunRequest(
        args.trainers, args.datasets, args.source, args.seeds, args.shots, args.config, grid(args.vary)
    )
    jobs = plan(protocol, checkout, output, data, request)
    if not data:
        notify("no data folder given: running the built-in demo, a tiny CLIP on built-in datasets")
    done = [job for job in jobs if result_of(job)]
    if done:
        notify(f"{len(done)} of {len(jobs)} runs are done")
    refuse_other_settings(done, checkout, data)
    if args.dry_run:
        for line in explain_configs(jobs):
            notify(line)
        notify(f"in {checkout.root}; a line with --model-dir must wait for the line that writes that folder")
        for job in jobs:
            if job not in done:
                print(shlex.join(["python", *job.command(checkout, data)]))
        return 0
    return launch_and_report(protocol, jobs, checkout, output, data, args)


def launch_and_report(
    protocol: Protocol, jobs: list[Job], checkout: Checkout, output: Path, data: Path | None, args: argparse.Namespace
) -> int:
    """Run the jobs, print the table, and return the exit status."""
    mkdir_if_missing(output / protocol.name)  # refuses a folder that cannot be written before the first run
    at_once = args.jobs or (1 if data else DEMO_JOBS)
    unfinished = launch(jobs, checkout, data, args.verbose, at_once)
    write_summary(protocol, output)
    print(table(protocol, summarize(protocol, jobs)))
    for line in unfair(jobs):
        notify(f"not a fair comparison: {line}")
    notify(f"also in {output / protocol.name}: summary.json, summary.csv and the runs themselves")
    if unfinished:
        notify(f"{len(unfinished)} of {len(jobs)} runs failed (see above). Run the same command to try them again.")
    return max(unfinished.values(), default=0)


def parser(protocol: Protocol) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog=f"dassl {protocol.name}",
        description=HELP.format(title=protocol.title[0].upper() + protocol.title[1:], name=protocol.name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add("--trainers", nargs="+", metavar="METHOD", help="folders of configs/trainers/")
    datasets = "the datasets to test on" if protocol.transfer else "datasets"
    add("--datasets", nargs="*", metavar="NAME", help=f"{datasets}: files of configs/datasets/ without .yaml")
    if protocol.transfer:
        add("--source", metavar="NAME", help="the dataset to train on")
    add("--seeds", nargs="+", type=integer_from(0), metavar="S", help="one run each")
    add("--shots", nargs="+", type=parse_shots, metavar="N", help="training images per class, a percentage of them "
        "(10%%), or all; one run each")  # fmt: skip
    add("--data", metavar="FOLDER", help="the folder that holds the datasets (default: the built-in demo)")
    add("--output", metavar="FOLDER", help="for runs and tables (default: output in the checkout)")
    add("--config", metavar="NAME", help="a file of configs/trainers/METHOD/ without .yaml (default: tiny in the demo, "
        "with --data the method's released one)")  # fmt: skip
    add("--vary", nargs="+", action="append", metavar=("KEY", "VALUE"), help="try these values of a setting, such as "
        "TRAINER.RPO.K 4 8 24; repeated, every combination")  # fmt: skip
    add("--checkout", metavar="FOLDER", help="where train.py and configs/ are (default: the current folder)")
    add("--jobs", type=integer_from(1), metavar="N", help="runs at a time, sharing the cores (default: 1; in the "
        f"demo, whose runs are small, {DEMO_JOBS})")  # fmt: skip
    add("--dry-run", action="store_true", help="print the commands of unfinished runs without running them")
    add("--verbose", action="store_true", help="show all output of the runs instead of one progress bar")
    p.set_defaults(source=None)
    return p


def grid(vary: list[list[str]] | None) -> dict[str, list] | None:
    """Convert [[KEY, VALUE, ...], ...] to {key: values}."""
    for key, *values in vary or []:
        if not values:
            raise UserError(f"--vary {key}: expected the values to try after the key, got none.")
    return {key: [decode(value) for value in values] for key, *values in vary} if vary else None
