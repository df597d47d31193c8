"""Training steps on a GPU, the plain path next to ours: `python benchmarks/gpu.py --prec bf16`.

The plain path is that of `run.py`. Ours runs eager, as a CUDA graph (MODEL.CUDA_GRAPH), and with --compile through
torch.compile as well. All take turns. Several successive steps are timed together by the device's events; memory is the
peak of what torch allocates above the model. A row is marked WRONG, and the exit status is 1, if losses differ, or if a
graph's loss is not exactly that of the eager step.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from basics import write_json
from benchmarks.measure import counted, loss_of, median_seconds, memory_mib, reset_peak, step, tolerance  # noqa: E402
from benchmarks.methods import PROMPTS, Case, Paths, build  # noqa: E402
from promptlearn.cli.common import integer_from  # noqa: E402
from trainers.base import TOWER_DTYPES  # noqa: E402

BATCHES = {"RPO": 4, "CoOp": 32, "CoCoOp": 1, "MaPLe": 4, "SEP": 4, "VPT": 4}
CASES = [(method, prompts, BATCHES[method]) for method, prompts in PROMPTS.items()] + [("RPO", 4, 4)]
CLASSES = (50, 500, 1000)
STEPS = 5  # timed together


def steps(case: Case, paths: Paths, how: str, count: int) -> torch.Tensor:
    """Take some training steps. Returns the last loss."""
    for _ in range(count):
        loss = step(loss_of(case, paths, how), paths.model.prompt_learner)
    return loss


def try_out(case: Case, paths: Paths, how: str) -> tuple[float, float]:
    """Return the peak memory in MiB and the first loss. A step before it warms up, compiles, and captures."""
    learner = paths.model.prompt_learner
    start = {k: v.clone() for k, v in learner.state_dict().items()}
    torch.cuda.empty_cache()
    reset_peak(case.device)
    before = memory_mib(case.device, peak=False)
    losses = []
    for _ in range(2):
        learner.load_state_dict(start)
        losses.append(steps(case, paths, how, 1).item())
    peak = memory_mib(case.device, peak=True) - before
    learner.load_state_dict(start)
    return peak, losses[-1]


def row(case: Case, ways: tuple[str, ...], rounds: int) -> dict:
    """Measure one training step in each way."""
    paths, peaks, losses = build(case), {}, {}
    for how in ways:
        try:
            peaks[how], losses[how] = try_out(case, paths, how)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    timed = median_seconds(case.device, {how: partial(steps, case, paths, how, STEPS) for how in losses}, rounds)
    middle = {how: 1000 * each / STEPS for how, each in timed.items()}
    described = {k: getattr(case, k) for k in ("method", "prompts", "classes", "batch", "prec")}
    columns = {f"{how} ms": middle.get(how) for how in ways} | {f"{how} MiB": peaks.get(how) for how in ways}
    if "fast" not in middle:
        return {**described, **columns, "numbers": "out of memory"}
    fastest = min(time for how, time in middle.items() if how != "plain")
    columns["TFLOP/s"] = counted(loss_of(case, paths, "fast")) / fastest / 1e9
    # A graph replays the kernels of the eager step: its loss is exactly the same.
    right = losses.get("graph", losses["fast"]) == losses["fast"]
    if "plain" in middle:
        expected = losses["plain"]
        columns["time ratio"] = middle["plain"] / fastest
        columns["loss difference"] = max(abs(loss - expected) / abs(expected) for loss in losses.values())
        right = right and columns["loss difference"] <= tolerance(case)
    equal = "equal" if "plain" in middle else "plain out of memory"
    return {**described, **columns, "numbers": equal if right else "WRONG"}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    positive = integer_from(1)
    p.add_argument("--methods", nargs="+", choices=list(PROMPTS), default=list(PROMPTS))
    p.add_argument("--classes", nargs="+", type=positive, default=CLASSES)
    p.add_argument("--prec", choices=list(TOWER_DTYPES), default="bf16", help="precision of the frozen towers")
    p.add_argument("--compile", action="store_true", help="compile as well, which takes minutes")
    p.add_argument("--layers", type=positive, default=12, help="layers of each tower (ViT-B/16 has 12)")
    p.add_argument("--rounds", type=positive, default=5, help=f"how often {STEPS} steps are timed; the median counts")
    p.add_argument("--output", help="JSON file for the rows, written after each")
    args = p.parse_args()
    if not torch.cuda.is_available():
        print("error: expected a CUDA device, got none. Use run.py, which measures on the CPU.", file=sys.stderr)
        return 2
    torch.backends.cudnn.allow_tf32 = False  # as train.py
    ways, rows = ("plain", "fast", "graph", *(["compiled", "compiled graph"] if args.compile else [])), []
    for classes in args.classes:
        for method, prompts, batch in CASES:
            if method not in args.methods:
                continue
            case = Case(method, prompts, classes, batch, args.layers, "cuda", args.prec)
            rows.append(row(case, ways, args.rounds))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if args.output:
                write_json(rows, Path(args.output))
            torch.cuda.empty_cache()
            torch.compiler.reset()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g"))
    return int(any(r["numbers"] in ("WRONG", "out of memory") for r in rows))


if __name__ == "__main__":
    sys.exit(main())
