"""`dassl report DIR`."""

import argparse
from pathlib import Path

from basics import UserError, notify, write_atomic
from promptlearn.experiments import Checkout, find_runs
from promptlearn.experiments.checkout import refuse_unknown
from promptlearn.experiments.planning import unique
from promptlearn.experiments.run_files import damaged

HELP = """\
Write one self-contained HTML page for each protocol with runs in the given folders, as FOLDER/PROTOCOL/report.html, and
pages single_runs and single_base2new for runs that were started by hand: tables, charts, and for one dataset a look
into the models (attention patterns, nearest words, image features before and after, images classified correctly and
incorrectly). A page opens from disk and loads nothing.

For that look, train.py explains one model of each method, unless that is done; --no-explain skips models that are
not explained.
"""


def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    damaged.clear()
    from promptlearn.report import Comparison, explain_missing, models, page  # imports matplotlib

    found = find_runs([Path(folder).expanduser() for folder in args.folders])
    folders = {each.protocol: Path(args.output).expanduser() if args.output else each.folder for each in found}
    comparisons = [Comparison(each.protocol, each.jobs, args.foreign_images) for each in found]
    comparisons = [comparison for comparison in comparisons if comparison.runs]
    if not comparisons:
        raise UserError(
            f"{', '.join(args.folders)}: expected a finished run, got none. There is nothing to report yet."
        )
    if args.look_into:
        refuse_unknown("dataset", [args.look_into], unique(name for c in comparisons for name in c.datasets))
    failed = False
    for comparison in comparisons:
        dataset = args.look_into if args.look_into in comparison.datasets else comparison.datasets[0]
        problems = []
        if not args.no_explain:
            problems = explain_missing(list(models(comparison, dataset).values()), Checkout(args.checkout))
        notes, failed = [f"Not explained: {problem}" for problem in problems], failed or bool(problems)
        path = folders[comparison.protocol] / comparison.protocol.name / "report.html"
        write_atomic(path, page(comparison, dataset, notes).encode())
        for note in notes:
            notify(note)
        notify(f"{comparison.protocol.name}: {len(comparison.runs)} runs, {len(comparison.missing)} missing")
        print(path)
    return int(failed or bool(damaged))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="dassl report",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("folders", nargs="*", default=["output"], metavar="DIR", help="folders of runs (default: output)")
    p.add_argument("--output", metavar="FOLDER", help="for the pages (default: DIR; for several, report)")
    p.add_argument("--look-into", metavar="DATASET", help="the dataset whose models are explained (default: the first)")
    p.add_argument("--no-explain", action="store_true", help="start no run; show only what exists")
    p.add_argument("--foreign-images", action="store_true", help="embed test images of runs from other machines, too")
    p.add_argument("--checkout", metavar="FOLDER", help="where train.py is, if not here or installed")
    return p
