"""`dassl reproduce`: the rows of one published table, measured next to published."""

import argparse

from basics import UserError
from promptlearn.cli.common import add_run_options, folders_of, run_jobs
from promptlearn.cli.parsing import command_parser
from promptlearn.experiments import PROTOCOLS, Checkout
from promptlearn.experiments.reproduction import choose_table, papers, plan_table, read_paper, show_table

HELP = """\
Run exactly the rows of one table or figure of a paper, with the released hyperparameters, and print it in the paper's
layout, with the published figures. Without --data, the same rows run on the built-in demo.

The runs are those of the protocols: finished ones are shared with `dassl base2new` and the others, and the same command
resumes. The tables are declared in configs/reproduce/.

examples:
  dassl reproduce --list
  dassl reproduce rpo --table 1 --data ~/data
  dassl reproduce sep --table sides --dry-run
"""


def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    checkout = Checkout(args.checkout)
    if args.list:
        print("\n\n".join(contents(checkout, name) for name in ([args.paper] if args.paper else papers(checkout))))
        return 0
    if not args.paper:
        raise UserError(f"PAPER: expected one of {', '.join(papers(checkout))}, got none. --list shows their tables.")
    paper = read_paper(checkout, args.paper)
    if not args.table:
        raise UserError(f"--table: expected one of {', '.join(paper.tables)}, got none.")
    table = choose_table(paper, args.paper, args.table)
    data, output = folders_of(args, checkout)
    rows = plan_table(table, checkout, output, data)
    jobs = list(dict.fromkeys(job for row in rows for job in row.jobs))
    title = f"{paper.source}, {args.table}: {table.title}"
    show = lambda: f"{title}\n\n{show_table(table, rows)}"  # noqa: E731
    return run_jobs(PROTOCOLS[table.protocol], jobs, checkout, output, data, args, show)


def contents(checkout: Checkout, name: str) -> str:
    """List the tables of a paper."""
    paper = read_paper(checkout, name)
    tables = {key: table.title for key, table in paper.tables.items()}
    tables |= {key: f"(not here) {reason}" for key, reason in paper.elsewhere.items()}
    width = max(map(len, tables))
    return "\n".join([f"{name}: {paper.title} ({paper.source})", *(f"  {k:{width}}  {v}" for k, v in tables.items())])


def parser() -> argparse.ArgumentParser:
    p = command_parser("reproduce", HELP)
    p.add_argument("paper", nargs="?", metavar="PAPER", help="a file of configs/reproduce/ without .yaml")
    p.add_argument("--table", metavar="NAME", help="a table or figure of the paper, such as 1 or figure-5")
    p.add_argument("--list", action="store_true", help="print the papers and their tables, and run nothing")
    add_run_options(p.add_argument)
    p.add_argument("--demo", dest="data", action="store_const", const=None, help="run on the demo (the default)")
    return p
