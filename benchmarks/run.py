"""Our path next to the plain one, in one run: `python benchmarks/run.py --method RPO --classes 50 --batch 4`.

The plain path does what the released code does in a step, and no more (tests/plain_clip.py). Sizes are those of
ViT-B/16, and weights are random. Both paths take turns on the same images; a row whose numbers differ is marked WRONG,
and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as train.py
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from basics import write_atomic  # noqa: E402
from benchmarks.measure import memory_row, profile, test_row, training_row, work_row  # noqa: E402
from benchmarks.methods import FURTHER, PROMPTS, TESTED, WAYS, Case, most_classes, most_prompts  # noqa: E402
from benchmarks.tables import (  # noqa: E402
    FURTHER_STEPS,
    PLAIN_TEST_IMAGES,
    STEPS,
    as_table,
    markdown,
    measure_all,
    replace_sections,
    sections,
)
from promptlearn.cli.common import integer_from  # noqa: E402
from trainers.base import TOWER_DTYPES  # noqa: E402

SWEEPS = {"classes": (10, 25, 50, 100, 200), "prompts": (1, 2, 4, 8, 16, 24, 48), "batch": (1, 2, 4, 8, 16)}


def show(rows: list[dict], as_json: bool) -> int:
    """Print rows; the exit status."""
    if as_json:
        print(json.dumps(rows[0] if len(rows) == 1 else rows))
    else:
        print(as_table(rows), end="", flush=True)
    return status(rows)


def status(rows: list[dict]) -> int:
    """Return the exit status: 1 if a row's numbers are wrong or missing."""
    return int(any(row.get("numbers", "equal") != "equal" for row in rows))


def refuse_contradictions(p: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with status 2 and a message if the arguments contradict each other or the machine."""
    tables = args.all or args.steps or args.further
    most, row = most_prompts(args.method), not (args.test or tables or args.plots or args.count)
    if args.method in FURTHER and (args.test or args.prec != "fp32"):
        p.error(f"--method {args.method}: expected a training step in fp32. Omit --test and --prec.")
    if args.method in TESTED and not args.test:
        p.error(f"--method {args.method}: expected a test pass. Add --test IMAGES.")
    if args.device == "cuda" and not torch.cuda.is_available():
        p.error("--device cuda: expected a CUDA device, got none. Use --device cpu.")
    if args.classes > most_classes():
        p.error(f"--classes: expected at most {most_classes()}, the number of made-up names, got {args.classes}.")
    if (args.prompts or 1) > most:
        p.error(f"--prompts: expected at most {most} for {args.method}, got {args.prompts}.")
    if args.ours != "fast" and not row:
        p.error("--ours: expected a training step, --memory, or --profile; the others measure the eager step.")
    if "graph" in args.ours and args.device != "cuda":
        p.error(f"--ours {args.ours}: expected a GPU. Add --device cuda.")
    if args.plain_at and not args.plain_at[0] < args.plain_at[1] <= args.classes:
        p.error(f"--plain-at: expected two increasing numbers up to --classes, got {args.plain_at}.")
    if args.plain_at and (args.memory or args.profile or not row):
        p.error("--plain-at: expected a training step. Omit the other option.")
    if args.json and (args.profile or args.plots):
        p.error("--json: expected a table; --plots writes its rows as JSON next to the picture.")
    if args.into and not tables:
        p.error("--into: expected --steps, --further, or --all.")
    if args.into and not args.into.is_file():
        p.error(f"--into: expected a Markdown file, got {args.into}.")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    positive = integer_from(1)
    p.add_argument("--method", choices=[*PROMPTS, *TESTED, *FURTHER], default="RPO")
    p.add_argument("--prompts", type=positive, help=f"prompts or context vectors; default: {PROMPTS | FURTHER}")
    p.add_argument("--classes", type=positive, default=50)
    p.add_argument("--batch", type=positive, default=4)
    p.add_argument("--layers", type=positive, default=12, help="layers of each tower (ViT-B/16 has 12)")
    p.add_argument(
        "--rounds",
        type=positive,
        help="timed steps per path; the median counts (default 5, or 2 with --all, --steps, and --further)",
    )
    p.add_argument("--threads", type=positive, default=2)
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--prec", choices=list(TOWER_DTYPES), default="fp32", help="precision of the frozen towers")
    p.add_argument(
        "--text-block",
        type=integer_from(0),
        default=0,
        help="class texts in memory at a time (MODEL.TEXT_BLOCK); 0: all",
    )
    p.add_argument("--ours", choices=WAYS, default="fast", help="our step eager (fast), compiled, ...")
    p.add_argument(
        "--plain-at",
        type=positive,
        nargs=2,
        default=(),
        metavar="C",
        help="run the plain path at two smaller numbers of classes",
    )
    what = p.add_mutually_exclusive_group()
    what.add_argument("--test", type=positive, metavar="IMAGES", help="measure a test pass over this many images")
    what.add_argument("--memory", action="store_true", help="memory and time of our path only")
    what.add_argument("--all", action="store_true", help="all rows of RESULTS.md (about 45 minutes)")
    what.add_argument("--steps", action="store_true", help="its training steps with 50 classes (about 10 minutes)")
    what.add_argument("--further", action="store_true", help="those of the further methods (about 15 minutes)")
    what.add_argument("--plots", metavar="FOLDER", help="plot time and memory against classes, prompts, and batch")
    what.add_argument("--count", action="store_true", help="the counted work of our step")
    what.add_argument("--profile", action="store_true", help="where the time of our step goes, from torch's profiler")
    p.add_argument("--output", default="output/benchmarks", help="folder for the rows of the tables so far")
    p.add_argument("--into", type=Path, metavar="FILE", help="replace these sections of a Markdown file (RESULTS.md)")
    p.add_argument("--json", action="store_true", help="print rows as JSON")
    args = p.parse_args()
    refuse_contradictions(p, args)
    tables = args.all or args.steps or args.further
    rounds = args.rounds or (2 if tables else 5)
    case = Case(
        method=args.method,
        prompts=args.prompts or {**PROMPTS, **TESTED, **FURTHER}[args.method],
        classes=args.classes,
        batch=args.batch,
        layers=args.layers,
        device=args.device,
        prec=args.prec,
        text_block=args.text_block,
        how=args.ours,
    )
    if tables:
        only = STEPS if args.steps else FURTHER_STEPS if args.further else ""
        rows = measure_all(case, rounds, args.threads, Path(args.output), only)
        print(json.dumps(rows) if args.json else markdown(rows, case, rounds, args.threads))
        if args.into and not status(rows):
            texts = sections(rows, case, rounds, args.threads)
            write_atomic(args.into, replace_sections(args.into.read_text(), texts).encode())
        return status(rows)
    if args.plots:
        from benchmarks.plots import plot_sweeps

        sweeps = {**SWEEPS, "prompts": [k for k in SWEEPS["prompts"] if k <= most_prompts(args.method)]}
        return plot_sweeps(case, sweeps, Path(args.plots), rounds, args.threads)
    if args.count:
        return show([work_row(case, args.threads)], args.json)
    if args.profile:
        print(profile(case, rounds, args.threads))
        return 0
    if args.test:
        plain = min(PLAIN_TEST_IMAGES.get(args.method, args.test), args.test)
        return show([test_row(case, args.test, plain, args.threads)], args.json)
    if args.memory:
        return show([memory_row(case, 1 + rounds, args.threads)], args.json)
    return show([training_row(case, rounds, args.threads, tuple(args.plain_at))], args.json)


if __name__ == "__main__":
    sys.exit(main())
