"""Arguments and output that several commands share."""

import argparse
import json
import shlex
from collections.abc import Callable
from pathlib import Path

from basics import UserError, mkdir_if_missing, next_lines, notify
from promptlearn.cli.cluster import add_cluster_options, choose_backend, detach, resources_of
from promptlearn.cli.parsing import integer_from
from promptlearn.experiments import (
    Checkout,
    Job,
    Protocol,
    explain_configs,
    launch,
    refuse_other_settings,
    result_of,
    unfair,
    write_summary,
)
from promptlearn.experiments.backends.resources import Resources
from promptlearn.experiments.requested_datasets import is_demo

DEMO_JOBS = 2  # its steps are too small for two threads: two runs side by side take little more time than one


def add_run_options(add: Callable) -> None:
    """Add the options that `folders_of` and `run_jobs` read, and --checkout."""
    add("--data", metavar="FOLDER", help="the folder that holds the datasets (default: the built-in demo)")
    add("--output", metavar="FOLDER", help="for runs and tables (default: output)")
    add("--checkout", metavar="FOLDER", help="where train.py and configs/ are, if not here or installed")
    add("--jobs", type=integer_from(1), metavar="N", help="runs at a time, sharing the cores (default: one per GPU, or "
        f"1 without; in the demo, whose runs are small, {DEMO_JOBS})")  # fmt: skip
    add("--dry-run", action="store_true", help="print the commands of unfinished runs without running them")
    add("--format", choices=("shell", "jsonl"), help="of --dry-run: commands, or one JSON object for "
        "each with its dependencies and resources, for any other engine")  # fmt: skip
    add("--verbose", action="store_true", help="show all output of the runs instead of one progress bar")
    add_cluster_options(add)


def folders_of(args: argparse.Namespace, checkout: Checkout) -> tuple[Path | None, Path]:
    """Return the folders of the datasets (None: the built-in demo) and of the runs."""
    data = Path(args.data).expanduser().resolve() if args.data else None
    if data and not data.is_dir():
        raise UserError(
            f"--data: expected the folder that holds the datasets, got {args.data}, which is not a folder. Check the "
            "path."
        )
    return data, Path(args.output).expanduser().resolve() if args.output else checkout.folder / "output"


def run_jobs(
    protocol: Protocol,
    jobs: list[Job],
    checkout: Checkout,
    output: Path,
    data: Path | None,
    args: argparse.Namespace,
    show: Callable[[], str],
) -> int:
    """Run the jobs that are not done, print their table, and return the exit status; with --dry-run, print commands.

    Args:
        show: make the table, once the jobs have run.
    """
    demo = is_demo([job.data for job in jobs if job.data], data)
    if demo:
        notify("no data folder given: running the built-in demo, a tiny CLIP on small datasets")
    done = [job for job in jobs if result_of(job)]
    if done:
        notify(f"{len(done)} of {len(jobs)} runs are done")
    refuse_other_settings(done, checkout, data)
    if args.format and not args.dry_run:
        raise UserError("--format: expected --dry-run, whose output it is for, got none. Add --dry-run.")
    if args.dry_run:
        missing = [job for job in jobs if job not in done]
        if args.format == "jsonl":
            print_plan(missing, checkout, data, resources_of(args))
        else:
            print_commands(missing, jobs, checkout, data)
        return 0
    mkdir_if_missing(output / protocol.name)  # refuses a folder that cannot be written before the first run
    args.jobs = args.jobs or (DEMO_JOBS if demo and args.on == "local" else None)
    if args.detach:
        return detach(jobs, checkout, data, output, args)
    unfinished = launch(jobs, choose_backend(checkout, data, output, args), args.verbose)
    write_summary(protocol, output)
    print(show())
    for line in unfair(jobs):
        notify(f"not a fair comparison: {line}")
    notify(f"the runs, summary.json, and summary.csv are in {output / protocol.name}")
    if unfinished:
        notify(f"{len(unfinished)} of {len(jobs)} runs failed (see above). Run the same command to try them again.")
    else:
        folder = str(output / protocol.name)
        notify(next_lines([["dassl", "report", folder], ["dassl", "results", folder, "--statistics"]]))
    return max(unfinished.values(), default=0)


def print_commands(missing: list[Job], jobs: list[Job], checkout: Checkout, data: Path | None) -> None:
    """Print which config each of the jobs uses, and the commands of the missing ones."""
    for line in explain_configs(jobs):
        notify(line)
    notify(f"in {checkout.folder}; a line with --model-dir must wait for the line that writes that folder")
    for job in missing:
        print(shlex.join([*program_of(checkout), *job.arguments(checkout, data)]))


def print_plan(missing: list[Job], checkout: Checkout, data: Path | None, resources: Resources) -> None:
    """Print each missing job as a JSON object: its number, command, folder to start in, dependencies, and resources."""
    numbers = {job: number for number, job in enumerate(missing)}
    each = {"cpus": resources.cpus, "gpus": resources.gpus, "memory": resources.memory or None}
    for job, number in numbers.items():
        entry = {
            "id": number,
            "name": str(job),
            "command": [*program_of(checkout), *job.arguments(checkout, data)],
            "folder": str(checkout.folder),
            "after": [numbers[job.source]] if job.source in numbers else [],
            "output": str(job.folder),
            "resources": {**each, "minutes": resources.minutes},
        }
        print(json.dumps(entry, ensure_ascii=False))


def program_of(checkout: Checkout) -> list[str]:
    """Return the program that runs train.py from `checkout.folder`."""
    return ["python", "train.py"] if checkout.folder == checkout.root else ["dassl", "train"]
