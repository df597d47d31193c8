"""Times the listing and sampling of a large dataset: `python benchmarks/large_datasets.py --images 1000000`.

Makes class folders with files that are no real images (only paths, names, and sizes are read), and for each reader
prints the seconds and the memory above the start of the process, at the peak and afterward. Most of the second pass
over a folder is served from the system's cache, as in the second of several runs.
"""

import argparse
import contextlib
import csv
import gc
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

CLASSES = 21_000
SHOTS = 16
TEST_SHARE = 10  # one image of so many is a test image
READERS = ("folder", "csv", "split", "imagenet")


def make_files(root: Path, classes: int, images: int) -> None:
    """Write `images` files in `classes` folders, and a CSV file and a split file that name them."""
    parts: dict[str, list] = {"train": [], "val": [], "test": []}
    with open(root / "table.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        for label in range(classes):
            synset, name = f"n{label:08}", f"kind of thing {label}"
            for part in ("train", "val"):
                (root / "imagenet" / "images" / part / synset).mkdir(parents=True)
            for number in range(label, images, classes):
                part = "train" if (number // classes) % TEST_SHARE else "val"
                path = f"imagenet/images/{part}/{synset}/{synset}_{number}.JPEG"
                (root / path).write_text(path)
                split = "train" if part == "train" else "test"
                table.writerow([path, name, split])
                parts[split].append([path, label, name])
    (root / "split.json").write_text(json.dumps(parts))
    names = "".join(f"n{label:08} kind of thing {label}\n" for label in range(classes))
    (root / "imagenet" / "classnames.txt").write_text(names)


def measure(reader: str, root: Path, shots: int) -> dict:
    """Build a dataset, and return its seconds, MiB at the peak and afterward, and images held."""
    import datasets  # noqa: F401  # registers them
    from dassl.config import get_cfg_default
    from dassl.data.datasets import build_dataset

    cfg = get_cfg_default()
    places = {"folder": "imagenet/images", "csv": "table.csv", "split": "split.json", "imagenet": ""}
    cfg.DATASET.NAME = "ImageNet" if reader == "imagenet" else "ImageFolder"
    cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.SEED = str(root / places[reader]), shots, 1
    gc.collect()
    before, start = resident(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        dataset = build_dataset(cfg)
    seconds = time.process_time() - start
    gc.collect()
    peak = resident("VmHWM")  # not ru_maxrss, which a process takes over from the one that started it
    held = sum(len(items or []) for items in (dataset.train_x, dataset.val, dataset.test))
    return {
        "s": seconds,
        "peak": peak - before,
        "after": resident() - before,
        "held": held,
        "hash": dataset.draw_hash[:8],
    }


def resident(kind: str = "VmRSS") -> float:
    """Return this process's memory in MiB: now, or the most so far ("VmHWM"). Linux only."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[kind].split()[0]) / 1024  # from KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10**6)
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--shots", type=int, default=SHOTS, help="-1 for all images")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=READERS)
    parser.add_argument("--root", type=Path, help="a folder for the files, which are kept (default: a temporary one)")
    parser.add_argument("--one", choices=READERS, help=argparse.SUPPRESS)  # measured in a process of its own
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.root, args.shots)))
        return
    with tempfile.TemporaryDirectory() if args.root is None else contextlib.nullcontext(args.root) as folder:
        root = Path(folder)
        if not (root / "split.json").exists():
            make_files(root, args.classes, args.images)
        rows, millions = [], args.images / 10**6
        for reader in args.readers:
            command = [sys.executable, __file__, "--one", reader, "--root", str(root), "--shots", str(args.shots)]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            figures = [found[key] / millions for key in ("s", "peak", "after")]
            rows.append(
                [reader, f"{args.images:,}", *(f"{x:,.0f}" for x in figures), f"{found['held']:,}", found["hash"]]
            )
    header = ["reader", "images", "s per million", "MiB at the peak", "MiB afterward", "images held", "sample"]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=["left"] + ["right"] * 6))


if __name__ == "__main__":
    main()
