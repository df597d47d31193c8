"""Estimates what a full comparison costs on GPUs: `python benchmarks/costs.py` prints the tables of docs/scale.md.

Everything measured comes from RESULTS.md: steps on one H200 in float32, and counted operations. The rest is arithmetic
with the assumptions below, and with the epochs, batches, and sizes in configs/ and datasets/sources.json.
"""

import argparse
import heapq
import json
import math
import re
from pathlib import Path

import numpy as np
import yaml
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
DATASETS = {  # files of configs/datasets/ -> names in sources.json
    **{"imagenet": "ImageNet", "caltech101": "Caltech101", "oxford_pets": "OxfordPets", "eurosat": "EuroSAT"},
    **{"stanford_cars": "StanfordCars", "oxford_flowers": "OxfordFlowers", "food101": "Food101", "sun397": "SUN397"},
    **{"fgvc_aircraft": "FGVCAircraft", "dtd": "DescribableTextures", "ucf101": "UCF101"},
}
UNTRAINED = ("ZeroshotCLIP",)
ON_FEATURES = ("LP", "LinearProbeCLIP", "CLIPAdapter", "TaskRes", "TipAdapter", "TipAdapterF")  # an image pass is all
# Assumptions.
START = 20.0  # s per process: imports, weights, lists of images
LIKE = {"IVLP": "MaPLe"}  # methods without a row, and one with the same tokens
PASSES = {"SEP": 2.0, "PLOTPP": 4.0, "VPT": 0.0}  # of each class's text in a step, next to CoOp's; 1 for the others
IMAGE_PASSES = {"PLOTPP": 8, "MMA": 2, "CLIPLoRA": 2}  # of a further image in the batch, forward and backward
CORES = 8  # per GPU
KIND = re.compile(r"^\|")


def tables(section: str) -> list[dict[str, str]]:
    """Return the rows of the first table in a section of RESULTS.md."""
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if KIND.match(line)]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def number(text: str) -> float:
    return float(text.replace(",", ""))


class Recorded:
    """What RESULTS.md holds, and the line t = overhead + operations / rate through its GPU rows."""

    def __init__(self) -> None:
        self.gflop = {  # method, prompts -> (classes, batch, GFLOP of a step)
            (row["method"], row["prompts"]): tuple(number(row[key]) for key in ("classes", "batch", "GFLOP"))
            for section in ("Training step", "Training step of further methods")
            for row in tables(section)
        }
        self.step: dict[tuple[str, str], dict[float, float]] = {}  # method, prompts -> classes -> seconds on the GPU
        for row in tables("GPU"):
            if row["precision"] == "fp32":
                own = self.step.setdefault((row["method"], row["prompts"]), {})
                own[number(row["classes"])] = number(row["ours, ms"]) / 1000
        known = [(self.gflop[key][2], self.step[key][50]) for key in self.step]
        slope, self.overhead = np.polyfit(*zip(*known, strict=True), 1)
        self.rate = 1 / slope  # GFLOP per second
        self.error = max(abs(self.overhead + g / self.rate - t) / t for g, t in known)
        cached = next(row for row in tables("Cached image features") if row["method"] == "CoOp")
        _, batch, gflop = self.gflop["CoOp", cached["prompts"]]
        self.image = gflop * (1 - 1 / number(cached["work ratio"])) / batch  # GFLOP of an image's forward pass
        slopes = [(of[1000] - of[50]) / 950 for (method, _), of in self.step.items() if 1000 in of and method != "RPO"]
        self.per_class = float(np.median(slopes))  # seconds for each class's text with its gradients
        loading = next(row for row in tables("Loading") if row["workers"] == "2")
        self.loaded = number(loading["ours"]) / 2  # images per second and core

    def step_seconds(self, method: str, prompts: str, batch: int, classes: int) -> tuple[float, bool]:
        """Return the seconds of a step, and whether they lie between measured ones of this method."""
        if method in ON_FEATURES:
            return self.overhead + batch * self.image / self.rate, False
        key = (method, prompts)
        own = self.step.get(key, {})
        row_classes, row_batch, gflop = self.gflop[key]
        more_images = (batch - row_batch) * IMAGE_PASSES.get(method, 1) * self.image
        at_row = own.get(row_classes, self.overhead + gflop / self.rate) + more_images / self.rate
        slope = (own[1000] - own[50]) / 950 if 1000 in own else PASSES.get(method, 1.0) * self.per_class
        return at_row + slope * (classes - row_classes), (1000 in own or method == "VPT") and batch == row_batch


def settings_of(method: str, config: str) -> tuple[int, int]:
    """Return the epochs and the batch of a config file."""
    found = yaml.safe_load((ROOT / "configs" / "trainers" / method / f"{config}.yaml").read_text())
    epochs = found.get("OPTIM", {}).get("MAX_EPOCH", 1)
    return epochs, found.get("DATALOADER", {}).get("TRAIN_X", {}).get("BATCH_SIZE", 32)


def runs_of(recorded: Recorded, method: str, shots: int) -> tuple[list[float], bool]:
    """Return the seconds of training and both tests on each dataset, and whether all steps are measured ones."""
    protocol = yaml.safe_load((ROOT / "configs" / "protocols" / "defaults.yaml").read_text())
    sources = json.loads((ROOT / "datasets" / "sources.json").read_text())["datasets"]
    row = LIKE.get(method, method)
    prompts = next((p for m, p in (*recorded.step, *recorded.gflop) if m == row), "")  # the first: the released number
    found, measured = [], method not in LIKE
    for dataset, name in DATASETS.items():
        config = protocol["configs"][method]
        config = config if isinstance(config, str) else config.get(dataset, config["default"])
        epochs, batch = settings_of(method, config)
        classes, tested = sources[name]["classes"], sources[name]["images"]["test"]
        base = math.ceil(classes / 2)
        seconds = 2 * START + tested * max(recorded.image / recorded.rate, 1 / (recorded.loaded * CORES))
        if method not in UNTRAINED:
            step, is_known = recorded.step_seconds(row, prompts, batch, base)
            measured &= is_known
            loading = batch / (recorded.loaded * CORES)
            seconds += epochs * max(shots * base // batch, 1) * max(step, loading)
        found.append(seconds)
    return found, measured and method not in UNTRAINED


def makespan(seconds: list[float], gpus: int) -> float:
    """Return when the last of these jobs ends on so many GPUs, longest jobs first."""
    free = [0.0] * gpus
    for each in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    args = parser.parse_args()
    recorded = Recorded()
    protocol = yaml.safe_load((ROOT / "configs" / "protocols" / "defaults.yaml").read_text())
    methods = [*UNTRAINED, *(name for group in protocol["groups"].values() for name in group)]
    rows, everything = [], []
    for method in methods:
        one_seed, measured = runs_of(recorded, method, args.shots)
        seconds = one_seed * (1 if method in UNTRAINED else args.seeds)
        everything += seconds
        times = [hours(makespan(seconds, gpus)) for gpus in args.gpus]
        rows.append([method, 2 * len(seconds), *times, hours(max(seconds)), "measured" if measured else "estimate"])
    times = [hours(makespan(everything, gpus)) for gpus in args.gpus]
    rows.append(["all at once", 2 * len(everything), *times, hours(max(everything)), ""])
    header = ["method", "runs", *(f"{n} GPU{'s' * (n > 1)}, h" for n in args.gpus), "longest pair of runs, h", "step"]
    align = ["left", *["right"] * (len(header) - 2), "left"]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=align))
    print(
        f"\nFit of the GPU rows at 50 classes: a step takes {1000 * recorded.overhead:.1f} ms and 1 s per "
        f"{recorded.rate:,.0f} GFLOP; the largest error is {recorded.error:.0%}. An image's forward pass: "
        f"{recorded.image:.1f} GFLOP. A class's text: {1000 * recorded.per_class:.3f} ms. Loading: "
        f"{recorded.loaded:.0f} images/s per core."
    )


if __name__ == "__main__":
    main()
