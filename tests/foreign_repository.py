"""The small repository of tests/foreign/repository, with pictures for its datasets."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

SOURCE = Path(__file__).parent / "foreign" / "repository"
CLASSES = ("bar", "cross", "dot", "ring")


def make_repository(folder: Path) -> Path:
    """Copy the repository into `folder`, and put pictures of both datasets into DATA in it. Returns its path."""
    repository = folder / "repository"
    shutil.copytree(SOURCE, repository, ignore=shutil.ignore_patterns("__pycache__"))
    rng = np.random.default_rng(0)
    for name, count, change in (
        ("shapes/images", 16, lambda pixels: pixels),
        ("styles/plain", 6, lambda pixels: pixels),
        ("styles/dark", 4, lambda pixels: pixels // 2),
        ("styles/inverted", 4, lambda pixels: 255 - pixels),
    ):
        for label, classname in enumerate(CLASSES):
            target = repository / "DATA" / name / classname
            target.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (20, 20, 3), dtype=np.uint8)
                pixels[4 * label : 4 * label + 6, 3:17] = 200
                Image.fromarray(change(pixels)).save(target / f"{number}.png")
    return repository
