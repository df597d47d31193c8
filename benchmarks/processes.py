"""One, two, and three processes under torchrun, for each method on the demo: losses, accuracy, and wall time.

    python benchmarks/processes.py [--processes 1 2 3] [--methods RPO CoOp] [--json]

All runs have the same images in the same batches. The losses are those of all epochs. The exit status is 1 if losses
differ by more than 1e-5 (relative), or accuracies or predictions at all.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tabulate import tabulate  # noqa: E402

TOLERANCE = 1e-5
# Methods that share batches, with settings that make the step one of the paper's kind on the tiny CLIP.
METHODS: dict[str, list[str]] = {
    **{name: [] for name in ("CoOp", "CoCoOp", "MaPLe", "IVLP", "VPT", "SEP", "RPO", "LP", "KgCoOp", "TCP", "MMA")},
    **{name: [] for name in ("PromptSRC", "LASP", "DePT", "PLOTPP", "MMRL", "CLIPAdapter", "TaskRes")},
    "CLIPLoRA": ["TRAINER.CLIPLORA.DROPOUT", "0.0"],
}
FIXED = ["--seed", "1", "--shots", "4", "--epochs", "2", "--batch-size", "6", "--device", "cpu"]
FIXED += ["--dataset-config-file", "configs/datasets/digits.yaml"]


def run(method: str, settings: list[str], processes: int, output: Path) -> dict:
    """Train a method and return its losses by epoch, accuracy, and seconds."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [*(start if processes > 1 else [sys.executable]), "train.py", "--trainer", method, *FIXED]
    command += ["--config-file", f"configs/trainers/{method}/tiny.yaml", "--output-dir", str(output), *settings]
    begin = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{method} on {processes} processes: exit status {done.returncode}\n{done.stderr}")
    losses = [float(row["loss"]) for row in csv.DictReader((output / "metrics.csv").read_text().splitlines())]
    result = json.loads((output / "results.json").read_text())
    answers = csv.DictReader((output / "predictions.csv").read_text().splitlines())
    classes = [(row["impath"], row["predicted"]) for row in answers]
    return {
        "losses": losses,
        "accuracy": result["metrics"]["accuracy"],
        "train s": result["seconds"]["train"],
        "wall s": time.perf_counter() - begin,
        "classes": classes,
    }


def row(method: str, settings: list[str], numbers: list[int]) -> dict:
    """Compare a method on several numbers of processes with one process."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {n: run(method, settings, n, Path(folder, str(n))) for n in numbers}
    one = runs[numbers[0]]
    others = [runs[n] for n in numbers[1:]]
    pairs = [(a, b) for other in others for a, b in zip(one["losses"], other["losses"], strict=True)]
    difference = max((abs(a - b) / abs(a) for a, b in pairs), default=0.0)
    same = all(other["accuracy"] == one["accuracy"] and other["classes"] == one["classes"] for other in others)
    found = {"method": method, "loss difference": difference, "accuracy": one["accuracy"], "predictions": same}
    found |= {f"train s, {n}": runs[n]["train s"] for n in numbers} | {
        f"wall s, {n}": runs[n]["wall s"] for n in numbers
    }
    return found | {"numbers": "equal" if same and difference <= TOLERANCE else "WRONG"}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3], help="the first is compared with the others")
    p.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    p.add_argument("--json", action="store_true")
    args = p.parse_args()
    rows = []
    for method in args.methods:
        rows.append(row(method, METHODS[method], args.processes))
        print(f"{method}: {rows[-1]['loss difference']:.1e} {rows[-1]['numbers']}", file=sys.stderr, flush=True)
    print(json.dumps(rows) if args.json else tabulate(rows, headers="keys", tablefmt="pipe", floatfmt=".3g"))
    return int(any(row["numbers"] != "equal" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
