"""Trackers of a training's numbers (TRAIN.TRACKER): TensorBoard, Weights & Biases, MLflow, Trackio.

Each has the two methods of TensorBoard's SummaryWriter that the engine calls: `add_scalar(tag, value, step)` and
`close()`. All write into the run's folder without a network. A resumed run continues the tracker's run.
"""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from basics import UserError, mkdir_if_missing, write_atomic
from dassl.engine import compat

PROJECT = "promptlearn"
RUN_FILE = "run.txt"  # the tracker's name of the run, for a resumed one


class WandbTracker:
    """Weights & Biases, offline unless WANDB_MODE says otherwise; `wandb sync` uploads the run."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]):
        wandb, known = _import("wandb"), _known_run(folder)
        mode = os.environ.get("WANDB_MODE", "offline")
        where = {"project": PROJECT, "name": name, "dir": str(folder), "mode": mode}
        self.run = wandb.init(**where, config=settings, id=known, resume="allow")
        _keep_run(folder, self.run.id)
        # Its own steps may only increase, but validation counts epochs and training batches.
        for part in ("train", "val", "test"):
            self.run.define_metric(f"{part}/*", step_metric=f"{part}/step")

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.run.log({tag: value, f"{tag.partition('/')[0]}/step": step})

    def close(self) -> None:
        self.run.finish()


class MlflowTracker:
    """MLflow, in a database in the folder unless MLFLOW_TRACKING_URI says otherwise."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]):
        self.mlflow, known = _import("mlflow"), _known_run(folder)
        if "MLFLOW_TRACKING_URI" not in os.environ:
            self.mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        self.mlflow.set_experiment(PROJECT)
        run = self.mlflow.start_run(run_id=known, run_name=None if known else name)
        if not known:
            self.mlflow.log_params(settings)
        _keep_run(folder, run.info.run_id)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.mlflow.log_metric(tag, value, step=step)

    def close(self) -> None:
        self.mlflow.end_run()


class TrackioTracker:
    """Trackio, in the folder unless TRACKIO_DIR says otherwise; `TRACKIO_DIR=... trackio show` shows the run."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]):
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))  # read when it is imported
        trackio, known = _import("trackio"), _known_run(folder)
        self.run = trackio.init(project=PROJECT, name=known or name, config=settings, resume="allow")
        self.trackio = trackio
        _keep_run(folder, known or name)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.trackio.log({tag: value}, step=step)

    def close(self) -> None:
        self.trackio.finish()


def open_tensorboard(folder: Path, name: str, settings: dict[str, Any]) -> Any:
    """Open TensorBoard's writer of the folder; `name` and `settings` are not used."""
    return compat.SummaryWriter(log_dir=str(folder))


TRACKERS = {
    "tensorboard": open_tensorboard,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
    "trackio": TrackioTracker,
}


def open_tracker(kind: str, output: Path, settings: dict[str, Any]) -> Any:
    """Open a tracker in the folder of its name in a run's folder.

    Args:
        kind: one of TRACKERS.
        settings: {dotted key: value}; DATASET.NAME, TRAINER.NAME, and SEED name the run.

    Raises:
        UserError: its package is not installed.
    """
    folder = output / kind
    mkdir_if_missing(folder)
    name = f"{settings['DATASET.NAME']}-{settings['TRAINER.NAME']}-seed{settings['SEED']}"
    return TRACKERS[kind](folder, name, settings)


def _import(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"TRAIN.TRACKER: expected an installed package, got {package}, which is not ({error}). Run pip install "
            f'"promptlearn-clip[{package}]", or leave the key empty.'
        ) from error


def _known_run(folder: Path) -> str | None:
    path = folder / RUN_FILE
    return path.read_text().strip() if path.is_file() else None


def _keep_run(folder: Path, run: str) -> None:
    write_atomic(folder / RUN_FILE, run.encode())
