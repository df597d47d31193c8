"""Verbs, help and exit status of the `dassl` command.

Exit status: 0 all is well; 1 a run failed; 2 bad input; 130 stopped by Ctrl-C or SIGTERM. A script's own is passed on.
"""

import argparse
import difflib
import runpy
import shlex
import signal
import sys
from pathlib import Path

from dassl import __version__
from dassl.experiments import (
    BASE2NEW,
    Checkout,
    discover,
    find_protocol,
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
usage: dassl COMMAND ...

Few-shot prompt learning on frozen CLIP. Call it from the checkout, where train.py and configs/ are.

commands:
  SCRIPT.py ...   run a script as `python SCRIPT.py ...` would
  base2new        train on the base classes, test on base and new classes: methods x data sets x seeds
  results         the table of base2new's results

examples:
  dassl base2new
      every method on handwritten digits with the built-in tiny CLIP; nothing is downloaded
  dassl base2new --trainers RPO --datasets letters braille
      one method on other built-in data sets
  dassl base2new --trainers RPO CoOp --datasets oxford_pets --data ~/data
      the real thing, ViT-B/16 with the released hyper-parameters
  dassl base2new --trainers RPO --datasets oxford_pets --data ~/data --dry-run
      one `python train.py ...` line for each run that is not done yet, for a cluster
  dassl results output
      base, new and H of all that is there, finished or not
  dassl train.py --trainer RPO --dataset-config-file configs/datasets/digits.yaml \\
      --config-file configs/trainers/RPO/tiny.yaml --seed 1 DATASET.NUM_SHOTS 16
      a single run

`dassl COMMAND --help` has the options of a command. `dassl --version` prints the version.
"""

BASE2NEW_HELP = """\
Train each method on the base classes of each data set (the first half) and test it on the base and on the new classes
(the other half). Zero-shot CLIP is always a row. The table is also written to OUTPUT/base2new/summary.json and
summary.csv, with all else that is in that folder.

The same command again goes on where it was stopped: runs whose results.json is there are skipped, others continue from
their last complete epoch, failed ones are tried again.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: sys.argv[1:]) and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return dispatch(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if argv[0] == "--version":
        print(f"dassl {__version__}")
        return 0
    verb, arguments = argv[0], argv[1:]
    if verb.endswith(".py"):
        return run_script(verb, arguments)
    if verb not in VERBS:
        nearest = difflib.get_close_matches(verb, [*VERBS, "train.py"], n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise UserError(f"unknown command {verb!r}; {hint}there are: {', '.join(VERBS)}, or a script such as train.py")
    return VERBS[verb](arguments)


def run_script(script: str, arguments: list[str]) -> int:
    """Run a script with the sys.argv and sys.path that `python SCRIPT ...` gives it. Its exit passes through."""
    path = Path(script)
    if not path.is_file():
        here = ", ".join(sorted(other.name for other in path.parent.glob("*.py"))) if path.parent.is_dir() else ""
        raise UserError(f"there is no script {script} (scripts in {path.parent.resolve()}: {here or 'none'})")
    sys.argv = [script, *arguments]
    sys.path[0] = str(path.resolve().parent)
    runpy.run_path(script, run_name="__main__")
    return 0


def base2new(arguments: list[str]) -> int:
    args = base2new_parser().parse_args(arguments)
    checkout = Checkout(args.checkout)
    data = Path(args.data).expanduser().resolve() if args.data else None
    if data and not data.is_dir():
        raise UserError(f"the data folder {args.data} is not a folder (expected: the one that holds the data sets)")
    output = Path(args.output).expanduser().resolve() if args.output else checkout.root / "output"
    jobs = plan(
        BASE2NEW, checkout, output, data, args.trainers, args.datasets, args.seeds, args.shots, args.config
    )
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


def results(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="dassl results", description="Print the table of a protocol's results.", allow_abbrev=False
    )
    parser.add_argument("folder", metavar="DIR", help="the --output folder of `dassl base2new`")
    protocol, folder = find_protocol(Path(parser.parse_args(arguments).folder).expanduser())
    jobs = discover(protocol, folder)
    if not jobs:
        raise UserError(f"{folder} has no run in it yet")
    print(table(summarise(jobs)))
    return 0


def base2new_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dassl base2new",
        description=BASE2NEW_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--trainers", nargs="+", metavar="METHOD", help="folders of configs/trainers/ (default: the protocol's)")
    add("--datasets", nargs="*", metavar="NAME", help="files of configs/datasets/ without .yaml (default: digits)")
    add("--seeds", nargs="+", type=integer_from(0), metavar="S", help="one run for each (default: 1 2 3)")
    add("--shots", type=integer_from(1), metavar="K", help="training images per class (default: 16)")
    add("--data", metavar="FOLDER", help="holds the data sets; without it the built-in demo is run")
    add("--output", metavar="FOLDER", help="for runs and tables (default: output in the checkout)")
    add("--config", metavar="NAME", help="a file of configs/trainers/METHOD/ without .yaml (default: tiny in the demo, "
        "with --data the method's released one, see configs/protocols/base2new.yaml)")
    add("--checkout", metavar="FOLDER", help="where train.py and configs/ are (default: the current folder)")
    add("--dry-run", action="store_true", help="print the commands of the runs that are not done, and run nothing")
    add("--verbose", action="store_true", help="show all that the runs print, instead of one bar over them")
    return parser


def integer_from(least: int):
    """An argparse type: an integer that is not below `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, found {text!r}")
        return int(text)

    return parse


def say(line: str) -> None:
    """Progress notes go to stderr; stdout is for tables and commands."""
    print(line, file=sys.stderr, flush=True)


VERBS = {"base2new": base2new, "results": results}
