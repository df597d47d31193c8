"""`dassl results DIR`."""

import argparse
from pathlib import Path

from basics import UserError, notify
from promptlearn.experiments import FORMATS, PROTOCOLS, find_runs, summarize, table, unfair
from promptlearn.experiments.results_table import ACCURACY, HARMONIC, at_equal_shots, metrics_of
from promptlearn.experiments.run_files import damaged, read_once

HELP = """\
Print tables of the runs in any folders: the --output folder of protocols, single runs of train.py, copies from other
machines. Runs of one protocol share a table; single runs have tables of their own, by what their results.json says.
"""


@read_once()
def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    damaged.clear()
    found = find_runs([Path(folder).expanduser() for folder in args.folders])
    known = metrics_of(job for each in found for job in each.jobs)
    if args.metric != ACCURACY and args.metric not in known:
        raise UserError(
            f"--metric: expected one of {', '.join(known) or 'none'}, which the results hold, got {args.metric}."
        )
    tables = [(each.protocol, each.jobs, summarize(each.protocol, each.jobs, args.metric)) for each in found]
    methods = [{line.method for own in at_equal_shots(lines).values() for line in own} for _, _, lines in tables]
    is_somewhere = any(args.statistics in names for names in methods)  # METHOD need not be in every table
    for number, (protocol, jobs, lines) in enumerate(tables):
        if len(found) > 1 or protocol.name not in PROTOCOLS:
            print("\n" * (number > 0), end="")
            print(f"{protocol.name}: {protocol.title}\n")
        print(table(protocol, lines, args.format, args.costs, args.calibration, args.metric, args.harmonic))
        is_here = args.statistics in methods[number] or not is_somewhere
        if args.statistics is not None and is_here and (len(methods[number]) > 1 or len(tables) == 1):
            from promptlearn.experiments.significance_text import statistics_text  # imports scipy, slowly

            print("\n" + statistics_text(protocol, lines, args.statistics or None, args.format))
        for line in unfair(jobs):
            notify(f"not a fair comparison: {line}")
    return int(bool(damaged))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="dassl results", description=HELP, allow_abbrev=False)
    p.add_argument(
        "folders",
        nargs="*",
        default=["output"],
        metavar="DIR",
        help="folders of runs: of a protocol, of a single run, or any that hold some (default: output)",
    )
    p.add_argument("--format", choices=FORMATS, default="text", help="how to print (default: text)")
    p.add_argument(
        "--metric",
        default=ACCURACY,
        metavar="NAME",
        help="the figure of the table: accuracy (default), balanced_accuracy, macro_f1, top5_accuracy, ...",
    )
    p.add_argument(
        "--harmonic",
        choices=HARMONIC,
        default="means",
        help="H of base and new: of the means over the seeds (default, as in CoCoOp), or the mean of each seed's (RPO)",
    )
    p.add_argument("--costs", action="store_true", help="also print trained parameters and floating-point operations")
    p.add_argument(
        "--calibration", action="store_true", help="also print calibration errors and the rejection of unknown classes"
    )
    p.add_argument(
        "--statistics",
        nargs="?",
        const="",
        metavar="METHOD",
        help="also test the differences: all pairs of methods, or METHOD against every other",
    )
    return p
