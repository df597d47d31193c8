"""`dassl figures [DIR ...]`."""

import argparse
from pathlib import Path

from basics import UserError, notify, write_atomic
from promptlearn.cli.parsing import add_folders, command_parser
from promptlearn.experiments.run_files import damaged

COLUMN, PAGE = 3.25, 6.75  # inches, in the templates of CVPR, ICML, and NeurIPS, up to a few hundredths
NARROWEST, WIDEST = 1, 40  # inches
FORMATS = ("pdf", "svg", "png")
HELP = f"""\
Write the charts of `dassl report` as files for a paper: FOLDER/PROTOCOL/figures/NAME.pdf, next to the page. They have
white ground, light colors, text of 8 points, and embedded TrueType fonts. Charts of models are those that a report has
explained.

--width column is {COLUMN} inches and page is {PAGE}. What needs the width of the report gets that of the page.
"""


def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    width = paper_width(args.width)
    damaged.clear()
    from promptlearn.report import charts_of, find_comparisons  # imports matplotlib

    output = Path(args.output).expanduser() if args.output else None
    written = 0
    for comparison, place in find_comparisons([Path(folder).expanduser() for folder in args.folders], output):
        charts = [chart for chart in charts_of(comparison) if args.only.lower() in chart.title.lower()]
        if not charts:
            continue
        folder = place / "figures"
        for chart in charts:
            own = max(width, PAGE) if chart.is_wide and args.width == "column" else width
            for form in args.format:
                write_atomic(folder / f"{chart.name}.{form}", chart.file(form, own))
        written += len(charts)
        notify(f"{comparison.protocol.name}: {len(charts)} figures")
        print(folder)
    if not written:
        raise UserError(
            f"--only: expected a part of a figure's title, got {args.only!r}. See the report for the titles."
        )
    return int(bool(damaged))


def paper_width(text: str) -> float:
    """Return the width in inches.

    Raises:
        UserError: it is neither a name nor such a number.
    """
    try:
        width = {"column": COLUMN, "page": PAGE}.get(text) or float(text)
    except ValueError:
        width = 0
    if not NARROWEST <= width <= WIDEST:
        raise UserError(f"--width: expected column, page, or {NARROWEST} to {WIDEST} inches, got {text}.")
    return width


def parser() -> argparse.ArgumentParser:
    p = command_parser("figures", HELP)
    add_folders(p.add_argument, "figures")
    p.add_argument("--format", nargs="+", choices=FORMATS, default=["pdf"], help="one or more (default: pdf)")
    p.add_argument("--width", default="column", metavar="WIDTH", help="column, page, or inches (default: column)")
    p.add_argument("--only", default="", metavar="TEXT", help="only figures with TEXT in their title")
    return p
