"""`dassl results DIR`."""

import argparse
from pathlib import Path

from dassl.experiments import discover, find_protocol, summarise, table
from dassl.utils import UserError


def run(arguments: list[str]) -> int:
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
