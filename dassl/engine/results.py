"""The files that report a run: `results.json`, `metrics.csv` and `predictions.csv`."""

import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

import dassl
from basics import write_atomic
from basics.csv_files import csv_text
from dassl.config import to_dict
from dassl.engine import distributed
from dassl.engine.checkpoints import prompts_sha256
from dassl.utils import device_name

RESULTS_FORMAT = 1


def write_metrics(rows: list[dict], path: Path) -> None:
    """Replace `metrics.csv`."""
    write_atomic(path, csv_text(rows).encode())


def write_predictions(answers: list[dict], impaths: list[str], folder: str, path: Path) -> None:
    """Write `predictions.csv`: one row per image, in the order of the test.

    Args:
        answers: the evaluator's `predictions()`.
        impaths: the paths of the same images; those inside the dataset's `folder` are written relative to it.
    """
    paths = [Path(impath) for impath in impaths]
    names = [(p.relative_to(folder) if p.is_relative_to(folder) else p).as_posix() for p in paths]
    rows = [{"impath": name, **answer} for name, answer in zip(names, answers, strict=True)]
    write_atomic(path, csv_text(rows).encode())


def peak_memory_mib(device: torch.device) -> float:
    """Return the most memory this process has held so far, in MiB: tensors on a GPU, resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere


def trained_parameters(modules: Iterable[nn.Module]) -> int:
    """Return the number of parameters (scalars) with gradients in `modules`, each counted once."""
    unique = {id(p): p.numel() for module in modules for p in module.parameters() if p.requires_grad}
    return sum(unique.values())


def code_commit() -> str | None:
    """Return the git commit of this code, with "-dirty" after it if files were changed; None outside a checkout."""
    root = Path(dassl.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def collect_results(
    trainer,
    task,
    metrics,
    test_seconds,
    calibration=None,
    unknowns=None,
    model_dir=None,
    load_epoch=None,
    status="done",
) -> dict:
    """Return the content of `results.json`.

    Except for `seconds` and `peak_memory_mib`, it is a function of config, seed, data and machine, unless the run was
    resumed on another machine: `changed_on_resume` lists what differed there.

    Args:
        task: "train" or "eval".
        metrics: the evaluator's summary of the test; None without a test.
        test_seconds: how long the test took; None without a test.
        calibration, unknowns: as `dassl.engine.calibration` measures them; None if it did not.
        model_dir, load_epoch: for "eval", where the tested model comes from.
        status: "done"; "n/a" if the model is bound to other classes, so that there is nothing to test.
    """
    cfg, dataset, record = trainer.cfg, trainer.dm.dataset, trainer.record
    epoch_seconds = [row["seconds"] for row in record.rows]
    return {
        "format": RESULTS_FORMAT,
        "status": status,
        "task": task,
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
        "dataset_dir": getattr(dataset, "dataset_dir", None),
        "shots": cfg.DATASET.NUM_SHOTS,
        "train_fraction": cfg.DATASET.TRAIN_FRACTION,
        "seed": cfg.SEED,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "metrics": metrics,
        "val": record.best_val,
        "calibration": calibration,
        "unknowns": unknowns,
        "epochs": len(record.rows),
        "stopped_early": record.stopped_early(),
        "nonfinite_steps": trainer.watch.skipped,
        "trained_parameters": trained_parameters(trainer._models.values()),
        "gflop": trainer.count_gflop() if status == "done" else None,
        "prompts_sha256": prompts_sha256(trainer._models),
        "draw_hash": getattr(dataset, "draw_hash", None),
        "data_sha256": getattr(trainer.dm, "digests", {}),
        "weights_sha256": getattr(trainer, "weights_sha256", None),
        "model_dir": model_dir,
        "load_epoch": load_epoch,
        "config": to_dict(cfg),
        "versions": {
            "dassl": dassl.__version__,
            "commit": code_commit(),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
            "python": platform.python_version(),
        },
        "device": device_name(trainer.device),
        "processes": distributed.size(),
        "threads": torch.get_num_threads(),
        "linear": getattr(trainer, "linear", None),
        "changed_on_resume": record.changes,
        "seconds": {
            "train": sum(epoch_seconds),
            "per_epoch": sum(epoch_seconds) / len(epoch_seconds) if epoch_seconds else None,
            "test": test_seconds,
        },
        "peak_memory_mib": peak_memory_mib(trainer.device),
    }
