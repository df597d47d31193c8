"""Trains and tests on thousands of classes with the built-in tiny CLIP: `python benchmarks/many_classes.py`.

The photos are made up: a test image of every class, and training images of a few of them; methods that know classes by
name need no more. Each run is a process of its own. Its memory is the peak of the whole process, its step time the mean
over the epoch.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 21_000
TRAINED = 32  # training images, each of another class
METHODS = ("ZeroshotCLIP", "RPO", "CoOp", "KgCoOp", "MaPLe")


def make_photos(folder: Path, classes: int) -> None:
    """Write one test image of each class, and TRAINED training images."""
    rng = np.random.default_rng(0)
    for number in range(classes):
        for part in ("train", "test")[number >= TRAINED :]:
            place = folder / part / f"kind {number}"
            place.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{number}.png")


def run(method: str, photos: Path, output: Path, options: list[str]) -> dict:
    """Train one epoch and test; return results.json, with the seconds of the process."""
    command = [sys.executable, str(ROOT / "train.py"), "--trainer", method, "--root", str(photos), "--seed", "1"]
    command += ["--dataset-config-file", str(ROOT / "configs/datasets/image_folder.yaml")]
    command += ["--config-file", str(ROOT / f"configs/trainers/{method}/tiny.yaml"), "--output-dir", str(output)]
    command += ["OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1", *options]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((output / "results.json").read_text()) | {"wall": time.monotonic() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[CLASSES])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument(
        "--photos", type=Path, help="a folder for the photos, which are kept (default: a temporary one)"
    )
    parser.add_argument("options", nargs="*", help="settings of train.py, such as MODEL.TEXT_BLOCK 1000")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for classes in args.classes:
            photos = (args.photos or Path(folder)) / f"photos_{classes}"
            if not photos.exists():
                make_photos(photos, classes)
            for method in args.methods:
                found = run(method, photos, Path(folder, f"{method}_{classes}"), args.options)
                batch = found["config"]["DATALOADER"]["TRAIN_X"]["BATCH_SIZE"]
                steps = found["epochs"] * max(TRAINED // batch, 1)
                step = f"{found['seconds']['train'] / steps:.2f}" if steps else ""
                test, mib = found["seconds"]["test"], found["peak_memory_mib"]
                rows.append([method, f"{classes:,}", batch, step, f"{test:.1f}", f"{found['wall']:.0f}", f"{mib:,.0f}"])
    header = [
        "method",
        "classes",
        "batch",
        "step, s",
        "test of all classes, s",
        "process, s",
        "peak MiB of the process",
    ]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=["left"] + ["right"] * 6))


if __name__ == "__main__":
    main()
