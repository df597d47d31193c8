"""Training images per second, our loader next to a straightforward one: `python benchmarks/loading.py`.

The straightforward loader opens and decodes each file in every epoch, with the transforms of the released configs
(random resized crop to 224 x 224, bicubic; flip; normalize). Ours decodes once and keeps the pixels. Both apply the
same transforms to the same photos (JPEG, made here) and take turns. In the first epoch, in which ours decodes, images
are compared, not timed; if they differ, the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as train.py

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dassl.config import get_cfg_default  # noqa: E402
from dassl.data import build_data_loader  # noqa: E402
from dassl.data.data_manager import random_state_of  # noqa: E402
from dassl.data.datasets import Datum  # noqa: E402
from dassl.data.image_cache import ImageCache  # noqa: E402
from dassl.data.transforms import build_transform  # noqa: E402
from dassl.utils import stream  # noqa: E402
from promptlearn.cli.common import integer_from  # noqa: E402

SIZES = {"500x375": (500, 375), "1024x768": (1024, 768)}  # as most of OxfordPets and Caltech101; as FGVCAircraft


class Straightforward(Dataset):
    """Reads, decodes, and transforms an image on each request, with the same random numbers as ours."""

    def __init__(self, cfg, data_source: list[Datum]):
        self.seed, self.data_source, self.transform = cfg.SEED, data_source, build_transform(cfg)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        image = Image.open(self.data_source[index].impath).convert("RGB")
        with random_state_of(stream(self.seed, "augmentation", epoch, index).initial_seed()):
            return {"img": self.transform(image), "label": self.data_source[index].label}


def photographs(folder: str, count: int, size: tuple[int, int]) -> list[Datum]:
    """Write JPEG files of a width and height: scikit-learn's two photos, tiled and shifted at random."""
    width, height = size
    sources = load_sample_images().images
    shifts = torch.randint(max(size), (count, 2), generator=stream(0, "shifts")).tolist()
    items = []
    for number, shift in enumerate(shifts):
        source = sources[number % len(sources)]
        rows, columns = -(-height // source.shape[0]), -(-width // source.shape[1])
        pixels = np.roll(np.tile(source, (rows, columns, 1)), shift, axis=(0, 1))[:height, :width]
        path = os.path.join(folder, f"{number}.jpg")
        Image.fromarray(pixels).save(path, quality=90)
        items.append(Datum(path, label=number % len(sources), classname=str(number % len(sources))))
    return items


def config(workers: int):
    """Return a config with images and loader as in the released ones."""
    cfg = get_cfg_default()
    cfg.SEED, cfg.VERBOSE, cfg.DATALOADER.NUM_WORKERS = 0, False, workers
    cfg.INPUT.INTERPOLATION = "bicubic"
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    return cfg


def seconds(loader: DataLoader, epoch: int) -> float:
    """Return the seconds that loading one epoch takes."""
    loader.sampler.set_epoch(epoch)
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def measure(folder: str, size: str, workers: int, args: argparse.Namespace) -> dict:
    """Measure one row: both loaders take turns, epoch by epoch."""
    cfg, items = config(workers), photographs(folder, args.images, SIZES[size])
    store = ImageCache([item.impath for item in items], cfg.DATALOADER.KEEP_GIB * 2**30)
    options = dict(sampler_type="RandomSampler", data_source=items, batch_size=args.batch)
    ours = build_data_loader(cfg, tfm=build_transform(cfg), image_cache=store, **options)
    plain = build_data_loader(cfg, dataset_wrapper=lambda cfg, source, **_: Straightforward(cfg, source), **options)
    pairs = [(len(a["img"]), torch.equal(a["img"], b["img"])) for a, b in zip(plain, ours, strict=True)]
    images, equal = sum(n for n, _ in pairs), all(same for _, same in pairs)
    rounds = [(seconds(plain, n), seconds(ours, n)) for n in range(1, args.epochs + 1)]
    rates = [images / statistics.median(column) for column in zip(*rounds, strict=True)]
    return {
        "pictures": size,
        "workers": workers,
        "straightforward images/s": rates[0],
        "ours images/s": rates[1],
        "ratio": rates[1] / rates[0],
        "images": "equal" if equal else "WRONG",
    }


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=integer_from(1), default=160)
    p.add_argument("--batch", type=integer_from(1), default=32)
    p.add_argument("--workers", type=integer_from(0), nargs="+", default=[0, 2])
    p.add_argument("--epochs", type=integer_from(1), default=5, help="timed epochs after the first; the median counts")
    p.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(folder, size, workers, args) for size in SIZES for workers in args.workers]
    print(json.dumps(rows) if args.json else tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g"))
    return 0 if all(row["images"] == "equal" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
