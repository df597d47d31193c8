"""Times `dassl results` and `dassl report` on made-up runs: `python benchmarks/many_runs.py --runs 250 1000 5000`.

The runs are those of base2new, with the config keys, per-class results, predictions, and epochs that train.py writes.
Seconds are processor time of the whole command, the imports included.
"""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tabulate import tabulate

from dassl.config import get_cfg_default, to_dict

METHODS, SEEDS, SHOTS = 20, (1, 2, 3), (1, 2, 4, 8, 16)
DATASETS = 11
EPOCHS = 50
STAGES = {"base": "train_base", "new": "test_new"}
COMMANDS = {
    "results": [],
    "results --statistics": ["--statistics"],
    "report": ["--no-explain"],
}


def make_runs(output: Path, count: int, classes: int, images: int, single: bool = False) -> int:
    """Write about `count` runs of METHODS methods to `output`: as many datasets as needed, then numbers of shots.

    Args:
        classes, images: of each test.
        single: as runs that were started by hand, not as those of a protocol.

    Returns:
        The number of runs.
    """
    rng, config, made = np.random.default_rng(0), to_dict(get_cfg_default()), 0
    of_one = METHODS * len(SEEDS) * len(STAGES)  # the runs on one dataset with one number of shots
    datasets = min(DATASETS, max(1, round(count / of_one)))
    for shots in SHOTS[-max(1, round(count / of_one / datasets)) :]:
        for dataset in range(datasets):
            for method in range(METHODS):
                trainer = f"Method{method}" if method else "ZeroshotCLIP"
                for seed in SEEDS if method else (1,) * (shots == SHOTS[-1]):
                    for subsample, stage in STAGES.items():
                        parts = f"dataset{dataset}", f"shots_{shots}", trainer, "vit_b16", f"seed{seed}"
                        folder = output.joinpath("runs" if single else "base2new", stage, *parts)
                        folder.mkdir(parents=True)
                        run = {"trainer": trainer, "dataset": parts[0], "subsample": subsample, "shots": shots}
                        write_run(folder, run | {"seed": seed}, config, classes, images, rng)
                        made += 1
    return made


def write_run(folder: Path, run: dict, config: dict, classes: int, images: int, rng: np.random.Generator) -> None:
    """Write the files of one run, as train.py names them."""
    labels, names = np.arange(images) % classes, [f"{run['subsample']} class {number}" for number in range(classes)]
    right = rng.random(images) < 0.75
    predicted = np.where(right, labels, (labels + rng.integers(1, classes, images)) % classes)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["impath", "label", "predicted", "confidence", "classname", "predicted_classname"])
    for number, (label, answer) in enumerate(zip(labels, predicted, strict=True)):
        writer.writerow([f"{number}.jpg", label, answer, f"{rng.random():.6f}", names[label], names[answer]])
    (folder / "predictions.csv").write_text(text.getvalue())
    total, hits = np.bincount(labels, minlength=classes), np.bincount(labels[right], minlength=classes)
    per_class = {
        name: {"n": int(n), "correct": int(k), "accuracy": 100 * int(k) / int(n)}
        for name, n, k in zip(names, total, hits, strict=True)
    }
    digest = f"{run['trainer']} {run['dataset']} {run['shots']} {run['seed']}"
    is_test = run["subsample"] == "new"
    own = config | {"SEED": run["seed"], "TRAINER": {"NAME": run["trainer"]}}
    own["DATASET"] = config["DATASET"] | {"SUBSAMPLE_CLASSES": run["subsample"], "NUM_SHOTS": run["shots"]}
    result = run | {
        "format": 1,
        "status": "done",
        "task": "eval" if is_test else "train",
        "backbone": "ViT-B/16",
        "config": own,
        "metrics": {"accuracy": 100 * float(right.mean()), "ece": 1.0, "n": images, "per_class": per_class},
        "trained_parameters": 2048,
        "gflop": {"training_step": 300.0, "test_image": 40.0},
        "prompts_sha256": digest,
        "draw_hash": f"{run['seed']}" * 64,
        "data_sha256": {"train": digest[-1], "test": run["dataset"] + run["subsample"]},
        "weights_sha256": "0" * 64,
        "versions": {"dassl": "1", "commit": "0", "torch": "2"},
        "device": "cpu",
        "seconds": {"train": 100 * float(rng.random()), "per_epoch": 2.0, "test": 1.0},
        "peak_memory_mib": 900.0,
    }
    (folder / "results.json").write_text(json.dumps(result, indent=2))
    (folder / "status.json").write_text(json.dumps({"state": "done", "host": "elsewhere", "ended": "2026-01-01"}))
    if not is_test and run["trainer"] != "ZeroshotCLIP":
        losses = "".join(f"{epoch},{9 / epoch:.4f},0.002\n" for epoch in range(1, EPOCHS + 1))
        (folder / "metrics.csv").write_text(f"epoch,loss,lr\n{losses}")


def measure(command: list[str]) -> tuple[float, float]:
    """Return the processor seconds and peak MiB of a `dassl` command."""
    pid = subprocess.Popen([sys.executable, "-m", "promptlearn.cli", *command], stdout=subprocess.DEVNULL).pid
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"dassl {' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[250, 1000, 5000])
    parser.add_argument("--classes", type=int, default=50, help="of each test")
    parser.add_argument("--images", type=int, default=1000, help="of each test")
    parser.add_argument("--single", action="store_true", help="runs that were started by hand, not by a protocol")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=[*COMMANDS])
    args = parser.parse_args()
    rows = []
    for count in args.runs:
        with tempfile.TemporaryDirectory() as folder:
            made = make_runs(Path(folder), count, args.classes, args.images, args.single)
            for name in args.commands:
                seconds, mib = measure([name.split()[0], folder, *COMMANDS[name]])
                rows.append(
                    [f"dassl {name}", f"{made:,}", f"{seconds:.1f}", f"{1000 * seconds / made:.1f}", f"{mib:,.0f}"]
                )
    header = ["command", "runs", "processor s", "ms per run", "peak MiB"]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=["left"] + ["right"] * 4))


if __name__ == "__main__":
    main()
