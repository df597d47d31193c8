"""`dassl report DIR`."""

import argparse
from pathlib import Path

from basics import notify, write_atomic
from promptlearn.cli.parsing import add_folders, command_parser
from promptlearn.experiments import Checkout
from promptlearn.experiments.checkout import refuse_unknown
from promptlearn.experiments.planning import unique
from promptlearn.experiments.run_files import damaged, read_once

HELP = """\
Write one self-contained HTML page for each protocol with runs in the given folders, as FOLDER/PROTOCOL/report.html, and
pages single_runs and single_base2new for runs that were started by hand: tables, charts, each dataset in detail, and
for one dataset a look into the models (attention patterns, nearest words, image features before and after). A page
opens from disk and loads nothing; its tables and charts can be filtered and downloaded. `dassl figures` writes the
charts for a paper.

For that look, train.py explains one model of each method, unless that is done; --no-explain skips models that are
not explained.
"""


@read_once()
def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    damaged.clear()
    from promptlearn.report import explain_missing, find_comparisons, models, page  # imports matplotlib

    output = Path(args.output).expanduser() if args.output else None
    found = find_comparisons([Path(folder).expanduser() for folder in args.folders], output, args.foreign_images)
    if args.look_into:
        refuse_unknown("dataset", [args.look_into], unique(name for c, _ in found for name in c.datasets))
    failed = False
    for comparison, folder in found:
        dataset = args.look_into if args.look_into in comparison.datasets else comparison.datasets[0]
        problems = []
        if not args.no_explain:
            problems = explain_missing(list(models(comparison, dataset).values()), Checkout(args.checkout))
        notes, failed = [f"Not explained: {problem}" for problem in problems], failed or bool(problems)
        path = folder / "report.html"
        write_atomic(path, page(comparison, dataset, notes).encode())
        for note in notes:
            notify(note)
        notify(f"{comparison.protocol.name}: {len(comparison.runs)} runs, {len(comparison.missing)} missing")
        print(path)
    return int(failed or bool(damaged))


def parser() -> argparse.ArgumentParser:
    p = command_parser("report", HELP)
    add_folders(p.add_argument, "pages")
    p.add_argument("--look-into", metavar="DATASET", help="the dataset whose models are explained (default: the first)")
    p.add_argument("--no-explain", action="store_true", help="start no run; show only what exists")
    p.add_argument("--foreign-images", action="store_true", help="embed test images of runs from other machines, too")
    p.add_argument("--checkout", metavar="FOLDER", help="where train.py is, if not here or installed")
    return p
