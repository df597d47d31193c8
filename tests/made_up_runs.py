"""Run folders like those of train.py, with made-up results: enough for a report."""

import csv
import io
import json
import socket
from pathlib import Path

import numpy as np
from PIL import Image

DIGEST = "abc"
HOSTILE = '<img src=x onerror="document.title=1"> $5 & \N{SNOWMAN}'  # the name of a class
CLASSES = {"base": ["cat", "a class whose name is longer than any axis has room for"], "new": ["fox", HOSTILE]}
IMAGES = 6  # per class
SEGMENT = {"causal": False, "replaced": 0, "rewritten": [], "prefilled": False}
TOWERS = {
    "text": {
        "layers": 3,
        "scenes": [
            [SEGMENT | {"name": "words", "tokens": 4, "attends_to": ["words"], "causal": True, "learned": [False] * 4}]
        ],
    },
    "image": {
        "layers": 4,
        "scenes": [
            [
                SEGMENT
                | {"name": "image", "tokens": 26, "attends_to": ["image"], "learned": [False] * 26, "prefilled": True},
                SEGMENT
                | {"name": "prompts", "tokens": 2, "attends_to": ["image"], "learned": [True] * 2, "replaced": 2},
            ]
        ],
    },
}


class MadeUpRuns:
    """Runs in `output`, on images in `output`/data."""

    def __init__(self, output: Path):
        self.output, self.data = output, output / "data"
        self.data.mkdir(parents=True)
        for number in range(2 * IMAGES):
            Image.new("RGB", (20, 20), (20 * number, 90, 120)).save(self.data / f"{number}.png")

    def base2new(self, dataset: str = "digits", seeds: tuple[int, ...] = (1, 2, 3)) -> None:
        """Add zero-shot CLIP, and RPO, CoOp and VPT with the seeds, and an explanation of RPO's first seed."""
        for subsample, stage in (("base", "train_base"), ("new", "test_new")):
            self.run(f"base2new/{stage}", dataset, "ZeroshotCLIP", 1, subsample, right=3)
            for number, trainer in enumerate(("RPO", "CoOp", "VPT")):
                for seed in seeds:
                    self.run(f"base2new/{stage}", dataset, trainer, seed, subsample, right=3 + (number + seed) % 3)
        explained = self.output / "base2new" / "train_base" / dataset / "shots_16" / "RPO" / "tiny" / f"seed{seeds[0]}"
        self.explain(explained)

    def run(
        self,
        stage: str,
        dataset: str,
        trainer: str,
        seed: int,
        subsample: str = "all",
        right: int = 3,
        shots: int = 16,
        config: str = "tiny",
    ) -> Path:
        """Add a run with `right` correct predictions for each class's IMAGES images, and return its folder."""
        folder = self.output / stage / dataset / f"shots_{shots}" / trainer / config / f"seed{seed}"
        folder.mkdir(parents=True)
        names = CLASSES.get(subsample, CLASSES["base"])
        rows = [
            {
                "impath": f"{label * IMAGES + i}.png",
                "label": label,
                "predicted": label if i < right else 1 - label,
                "confidence": 0.5 + i / 20,
                "classname": names[label],
                "predicted_classname": names[label if i < right else 1 - label],
            }
            for label in (0, 1)
            for i in range(IMAGES)
        ]
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        (folder / "predictions.csv").write_text(text.getvalue(), encoding="utf-8")
        accuracy = 100 * right / IMAGES
        of_class = {"n": IMAGES, "correct": right, "accuracy": accuracy}
        result = {
            "format": 1,
            "status": "done",
            "trainer": trainer,
            "dataset": dataset,
            "dataset_dir": str(self.data),
            "subsample": subsample,
            "shots": shots,
            "seed": seed,
            "backbone": "tiny",
            "config": {"OPTIM": {"LR": 0.1 if trainer == "RPO" else 0.2}, "TRAINER": {"NAME": trainer}},
            "metrics": {"accuracy": accuracy + seed / 10, "n": len(rows), "per_class": dict.fromkeys(names, of_class)},
            "trained_parameters": {"ZeroshotCLIP": 0, "RPO": 2048, "CoOp": 512}.get(trainer, 90000),
            "prompts_sha256": DIGEST,
            "draw_hash": f"{seed}" * 64,
            "versions": {"torch": "2.0", "dassl": "1.2", "commit": "abc1234"},
            "device": "cpu",
            "seconds": {"train": 3.0 * right, "per_epoch": 0.2},
            "peak_memory_mib": 900.0 + right,
        }
        (folder / "results.json").write_text(json.dumps(result), encoding="utf-8")
        status = {"state": "done", "host": socket.gethostname(), "ended": f"2026-03-0{seed}T10:00:00+00:00"}
        (folder / "status.json").write_text(json.dumps(status))
        if "train" in stage and trainer != "ZeroshotCLIP":
            (folder / "metrics.csv").write_text(f"epoch,loss,lr\n1,{9 - right},0.1\n2,{8 - right},0.1\n")
        return folder

    def explain(self, folder: Path, digest: str = DIGEST) -> None:
        """Add what `train.py --explain` writes."""
        (folder / "explain").mkdir()
        words = [{"vector": "ctx 1", "norm": 0.5, "words": [["a", 0.1], ["photo", 0.2]]}]
        explained = {"format": 2, "prompts_sha256": digest, "towers": TOWERS, "words": words}
        (folder / "explain" / "explain.json").write_text(json.dumps(explained), encoding="utf-8")
        rng, labels = np.random.default_rng(0), np.arange(20) % 2
        np.savez(
            folder / "explain" / "explain.npz",
            before=rng.normal(size=(20, 5)).astype(np.float16),
            after=rng.normal(size=(20, 10)).astype(np.float16),
            label=labels,
            classname=np.array(CLASSES["base"])[labels],
            attention=rng.uniform(0, 0.1, size=(2, 2, 3, 5, 5)).astype(np.float16),
            pictures=rng.integers(0, 256, size=(2, 40, 40)).astype(np.uint8),
            tokens=np.array(["CLS", "prompts 1"]),
            layers=np.array([1, 2, 4]),
            truth=np.array(["cat", HOSTILE]),
            predicted=np.array(["cat", "fox"]),
        )
