"""`dassl base2new`."""

import argparse
import shlex
import signal
from pathlib import Path

from dassl.cli.common import integer_from, say
from dassl.experiments import (
    BASE2NEW,
    Checkout,
    launch,
    plan,
    refuse_other_settings,
    result_of,
    summarise,
    table,
    write_summary,
)
from dassl.utils import UserError, mkdir_if_missing

HELP = """\
Train each method on the base classes of each data set (the first half) and test it on the base and on the new classes
(the other half). Zero-shot CLIP is always a row. The table is also written to OUTPUT/base2new/summary.json and
summary.csv, with all else that is in that folder.

The same command again goes on where it was stopped: runs whose results.json is there are skipped, others continue from
their last complete epoch, failed ones are tried again.
"""


def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    checkout = Checkout(args.checkout)
    data = Path(args.data).expanduser().resolve() if args.data else None
    if data and not data.is_dir():
        raise UserError(f"the data folder {args.data} is not a folder (expected: the one that holds the data sets)")
    output = Path(args.output).expanduser().resolve() if args.output else checkout.root / "output"
    jobs = plan(BASE2NEW, checkout, output, data, args.trainers, args.datasets, args.seeds, args.shots, args.config)
    if not data:
        say("no data folder given: this is the built-in demo, a tiny CLIP on data sets that render themselves")
    done = [job for job in jobs if result_of(job)]
    if done:
        say(f"{len(done)} of {len(jobs)} runs are done already")
    refuse_other_settings(done, checkout)
    if args.dry_run:
        say(f"in {checkout.root}; a line with --model-dir needs the one before it to have ended")
        for job in jobs:
            if job not in done:
                print(shlex.join(["python", *job.command(checkout, data)]))
        return 0

    folder = output / BASE2NEW.name
    mkdir_if_missing(folder)  # a folder that cannot be written is refused before the first run
    # SIGTERM, which schedulers send, ends the running job and is explained as Ctrl-C is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        unfinished = launch(jobs, checkout, data, args.verbose)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        return 130
    write_summary(BASE2NEW, folder)
    print(table(summarise(jobs)))
    say(f"also in {folder}: summary.json, summary.csv and the runs themselves")
    if unfinished:
        say(f"{len(unfinished)} of {len(jobs)} runs failed (reasons above); the same command tries them again")
    return max(unfinished.values(), default=0)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="dassl base2new",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = p.add_argument
    add("--trainers", nargs="+", metavar="METHOD", help="folders of configs/trainers/ (default: the protocol's)")
    add("--datasets", nargs="*", metavar="NAME", help="files of configs/datasets/ without .yaml (default: digits)")
    add("--seeds", nargs="+", type=integer_from(0), metavar="S", help="one run for each (default: 1 2 3)")
    add("--shots", type=integer_from(1), metavar="K", help="training images per class (default: 16)")
    add("--data", metavar="FOLDER", help="holds the data sets; without it the built-in demo is run")
    add("--output", metavar="FOLDER", help="for runs and tables (default: output in the checkout)")
    add(
        "--config",
        metavar="NAME",
        help="a file of configs/trainers/METHOD/ without .yaml (default: tiny in the demo, "
        "with --data the method's released one, see configs/protocols/base2new.yaml)",
    )
    add("--checkout", metavar="FOLDER", help="where train.py and configs/ are (default: the current folder)")
    add("--dry-run", action="store_true", help="print the commands of the runs that are not done, and run nothing")
    add("--verbose", action="store_true", help="show all that the runs print, instead of one bar over them")
    return p
