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
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as train.py
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tabulate import tabulate  # noqa: E402

from benchmarks.measure import line, memory, memory_row, profile, test_row, training_row, work_row  # noqa: E402
from benchmarks.methods import PROMPTS, Case  # noqa: E402
from trainers.base import TOWER_DTYPES  # noqa: E402

# What `--all` measures. Training: method, prompts, classes, batch, and where the plain path runs if not there.
TRAINING = (
    ("RPO", 24, 50, 4, ()),
    ("RPO", 4, 50, 4, ()),
    ("RPO", 24, 500, 4, ()),
    ("RPO", 4, 500, 4, ()),
    ("CoCoOp", 4, 50, 1, ()),
    ("CoCoOp", 4, 100, 1, ()),
    ("CoOp", 16, 50, 32, ()),
    ("CoOp", 16, 1000, 32, (200, 400)),
    ("MaPLe", 2, 50, 4, ()),
    ("SEP", 6, 50, 4, ()),
    ("VPT", 8, 50, 4, ()),
)
TEST = {"images": 500, "classes": 100}
PLAIN_TEST_IMAGES = {"CoCoOp": 5}  # its plain path encodes all texts for each image: minutes for a few
# Peak memory: ours at these numbers of classes, whole and in blocks; the plain path runs at `plain_at`, and the line
# through the two points tells the others.
MEMORY = {"classes": (50, 200, 1000), "batch": 4, "block": 100, "plain_at": (25, 50)}
SWEEPS = {"classes": (10, 25, 50, 100, 200), "prompts": (1, 2, 4, 8, 16, 24, 48), "batch": (1, 2, 4, 8, 16)}


def show(rows: list[dict], as_json: bool) -> int:
    """Print rows; the exit status: 1 if a row's numbers are wrong."""
    if as_json:
        print(json.dumps(rows[0] if len(rows) == 1 else rows))
    else:
        written = [{key: digits(value) for key, value in row.items()} for row in rows]
        print(tabulate(written, headers="keys", tablefmt="github", disable_numparse=True), flush=True)
    return int(any(row.get("numbers") == "WRONG" for row in rows))


def digits(value: object) -> object:
    """A measured number with three digits, or whole if it has more; anything else as it is."""
    if not isinstance(value, float):
        return value
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def measure_all(args: argparse.Namespace, case: Case) -> int:
    """The tables of RESULTS.md."""
    rows = []
    for method, prompts, classes, batch, plain_at in TRAINING:
        one = replace(case, method=method, prompts=prompts, classes=classes, batch=batch)
        rows.append({"table": "training step", **training_row(one, args.rounds, args.threads, plain_at)})
        print(f"{method}, {classes} classes: done", file=sys.stderr)
    for method, prompts in PROMPTS.items():
        one = replace(case, method=method, prompts=prompts, classes=TEST["classes"])
        plain = PLAIN_TEST_IMAGES.get(method, TEST["images"])
        rows.append({"table": "test pass", **test_row(one, TEST["images"], plain, args.threads)})
        print(f"{method}, test: done", file=sys.stderr)
    for method, prompts in PROMPTS.items():
        one = replace(case, method=method, prompts=prompts, batch=MEMORY["batch"])
        plain = [memory(replace(one, classes=classes), "plain", args.threads) for classes in MEMORY["plain_at"]]
        for classes in MEMORY["classes"]:
            peak = line(MEMORY["plain_at"], plain, classes)
            for block in (0, MEMORY["block"]):
                if block < classes:
                    row = memory_row(replace(one, classes=classes, text_block=block), args.rounds, args.threads)
                    more = {"plain MiB": peak, "memory ratio": peak / row["fast MiB"]}
                    rows.append({"table": "memory of a training step", **row, **more})
        print(f"{method}, memory: done", file=sys.stderr)
    if args.json:
        return show(rows, as_json=True)
    wrong = 0
    for table in dict.fromkeys(row["table"] for row in rows):
        print(f"\n### {table}\n")
        wrong |= show([{k: v for k, v in r.items() if k != "table"} for r in rows if r["table"] == table], False)
    return wrong


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--method", choices=list(PROMPTS), default="RPO")
    p.add_argument("--prompts", type=int, help=f"prompts or context vectors; by default {PROMPTS}")
    p.add_argument("--classes", type=int, default=50)
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--layers", type=int, default=12, help="layers of each tower (ViT-B/16 has 12)")
    p.add_argument("--rounds", type=int, default=5, help="steps timed on each path; the median counts")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--prec", choices=list(TOWER_DTYPES), default="fp32", help="precision of the frozen towers")
    p.add_argument("--text-block", type=int, default=0, help="class texts kept at a time (MODEL.TEXT_BLOCK); 0: all")
    p.add_argument("--compile", action="store_true", help="our step through torch.compile (MODEL.COMPILE)")
    p.add_argument("--plain-at", type=int, nargs=2, default=(), metavar="C", help="run the plain path at two smaller")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--test", type=int, metavar="IMAGES", help="a test pass over so many images, not a training step")
    what.add_argument("--memory", action="store_true", help="memory and time of our path alone")
    what.add_argument("--all", action="store_true", help="all tables of RESULTS.md (an hour)")
    what.add_argument("--plots", metavar="FOLDER", help="time and memory against classes, prompts and batch, as SVG")
    what.add_argument("--count", action="store_true", help="the counted work of our step alone: no noise")
    what.add_argument("--profile", action="store_true", help="where the time of our step goes")
    p.add_argument("--json", action="store_true", help="print rows as JSON")
    args = p.parse_args()
    case = Case(
        method=args.method,
        prompts=args.prompts or PROMPTS[args.method],
        classes=args.classes,
        batch=args.batch,
        layers=args.layers,
        device=args.device,
        prec=args.prec,
        text_block=args.text_block,
        compiled=args.compile,
    )
    if args.all:
        return measure_all(args, case)
    if args.plots:
        from benchmarks.plots import plot_sweeps

        return plot_sweeps(case, SWEEPS, Path(args.plots), args.rounds, args.threads)
    if args.count:
        return show([work_row(case, args.threads)], args.json)
    if args.profile:
        print(profile(case, args.rounds, args.threads))
        return 0
    if args.test:
        plain = min(PLAIN_TEST_IMAGES.get(args.method, args.test), args.test)
        return show([test_row(case, args.test, plain, args.threads)], args.json)
    if args.memory:
        return show([memory_row(case, args.rounds, args.threads)], args.json)
    return show([training_row(case, args.rounds, args.threads, tuple(args.plain_at))], args.json)


if __name__ == "__main__":
    sys.exit(main())
