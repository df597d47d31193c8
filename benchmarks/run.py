"""Our path against the plain one, in one run: `python benchmarks/run.py --method RPO --classes 50 --batch 4`.

The plain path is the released algorithm as it stands (tests/plain_clip.py): 77 text positions for every class, full
masks, text encoded again for every batch. Sizes are those of ViT-B/16, weights are random. Both paths take the same
steps on the same images in turn; a row whose numbers differ is marked WRONG and fails.
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

from benchmarks.measure import memory_row, profile, test_row, training_row, work_row  # noqa: E402
from benchmarks.methods import PROMPTS, TESTED, WAYS, Case, most_classes, most_prompts  # noqa: E402
from benchmarks.tables import PLAIN_TEST_IMAGES, as_table, markdown, measure_all  # noqa: E402
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
    """The exit status: 1 if a row's numbers are wrong or could not be had."""
    return int(any(row.get("numbers", "equal") != "equal" for row in rows))


def refuse_contradictions(p: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a message and status 2 where the arguments ask for what there is not."""
    most, row = most_prompts(args.method), not (args.test or args.all or args.steps or args.plots or args.count)
    if args.method in TESTED and not args.test:
        p.error(f"--method {args.method}: a test pass alone (--test)")
    if args.device == "cuda" and not torch.cuda.is_available():
        p.error("--device cuda: there is no CUDA device")
    if args.classes > most_classes():
        p.error(f"--classes: expected at most {most_classes()}, for which there are names, found {args.classes}")
    if (args.prompts or 1) > most:
        p.error(f"--prompts: {args.method} has room for {most}, found {args.prompts}")
    if args.ours != "fast" and not row:
        p.error("--ours: a training step, its memory or its profile; the other measurements are of the eager step")
    if "graph" in args.ours and args.device != "cuda":
        p.error(f"--ours {args.ours}: a graph needs --device cuda")
    if args.plain_at and not args.plain_at[0] < args.plain_at[1] <= args.classes:
        p.error(f"--plain-at: expected two increasing numbers up to --classes, found {args.plain_at}")
    if args.plain_at and (args.memory or args.profile or not row):
        p.error("--plain-at: a training step alone")
    if args.json and (args.profile or args.plots):
        p.error("--json: tables alone; --plots leaves its rows as JSON beside the picture")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    positive = integer_from(1)
    p.add_argument("--method", choices=[*PROMPTS, *TESTED], default="RPO")
    p.add_argument("--prompts", type=positive, help=f"prompts or context vectors; by default {PROMPTS}")
    p.add_argument("--classes", type=positive, default=50)
    p.add_argument("--batch", type=positive, default=4)
    p.add_argument("--layers", type=positive, default=12, help="layers of each tower (ViT-B/16 has 12)")
    p.add_argument("--rounds", type=positive, help="steps timed on each path; the median counts (5; with --all 2)")
    p.add_argument("--threads", type=positive, default=2)
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--prec", choices=list(TOWER_DTYPES), default="fp32", help="precision of the frozen towers")
    p.add_argument(
        "--text-block", type=integer_from(0), default=0, help="class texts kept at a time (MODEL.TEXT_BLOCK); 0: all"
    )
    p.add_argument("--ours", choices=WAYS, default="fast", help="our step as it stands, through torch.compile, ...")
    p.add_argument(
        "--plain-at", type=positive, nargs=2, default=(), metavar="C", help="run the plain path at two smaller"
    )
    what = p.add_mutually_exclusive_group()
    what.add_argument(
        "--test", type=positive, metavar="IMAGES", help="a test pass over so many images, not a training step"
    )
    what.add_argument("--memory", action="store_true", help="memory and time of our path alone")
    what.add_argument("--all", action="store_true", help="the tables of RESULTS.md (half an hour)")
    what.add_argument("--steps", action="store_true", help="its training steps with 50 classes (ten minutes)")
    what.add_argument("--plots", metavar="FOLDER", help="time and memory against classes, prompts and batch, as SVG")
    what.add_argument("--count", action="store_true", help="the counted work of our step alone: no noise")
    what.add_argument("--profile", action="store_true", help="where the time of our step goes")
    p.add_argument("--output", default="output/benchmarks", help="folder of --all: what is measured so far")
    p.add_argument("--json", action="store_true", help="print rows as JSON")
    args = p.parse_args()
    refuse_contradictions(p, args)
    rounds = args.rounds or (2 if args.all or args.steps else 5)
    case = Case(
        method=args.method,
        prompts=args.prompts or {**PROMPTS, **TESTED}[args.method],
        classes=args.classes,
        batch=args.batch,
        layers=args.layers,
        device=args.device,
        prec=args.prec,
        text_block=args.text_block,
        how=args.ours,
    )
    if args.all or args.steps:
        rows = measure_all(case, rounds, args.threads, Path(args.output), args.steps)
        print(json.dumps(rows) if args.json else markdown(rows, case, rounds, args.threads))
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
