"""The lines that a run starts and ends with."""

import re
import sys
from pathlib import Path

import torch

from dassl.engine.results import trained_parameters
from dassl.utils import device_name

ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")


def summarize_run(trainer, model_dir: str | None = None) -> str:
    """Return what a run will do, in a few lines.

    Args:
        model_dir: for a test, the folder of the tested model.
    """
    cfg, dataset = trainer.cfg, trainer.dm.dataset
    parameters = trained_parameters(trainer._models.values())
    paper = ARXIV.search(sys.modules[type(trainer).__module__].__doc__ or "")
    images = {"training": dataset.train_x, "validation": dataset.val, "test": dataset.test}
    counts = ", ".join(f"{len(items):,} {name}" for name, items in images.items() if items)
    shots = f"{cfg.DATASET.NUM_SHOTS} per class" if cfg.DATASET.NUM_SHOTS > 0 else "all images"
    if cfg.DATASET.TRAIN_FRACTION < 1:
        shots = f"{cfg.DATASET.TRAIN_FRACTION:.0%} of the images"
    classes = f"{trainer.num_classes} {cfg.DATASET.SUBSAMPLE_CLASSES}".removesuffix(" all")
    device = [device_name(trainer.device), getattr(trainer, "precision", "")]
    threads = torch.get_num_threads()
    device += [f"{threads} thread{'s' * (threads > 1)}"] if trainer.device.type == "cpu" else []
    rows = {
        "method": cfg.TRAINER.NAME + (f" (arXiv {paper[0]})" if paper else ""),
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "dataset": f"{cfg.DATASET.NAME}, {classes} classes; images: {counts}",
        "shots": f"{shots}, seed {cfg.SEED}",
    }
    if model_dir:
        rows["model"] = model_dir
    else:
        rows["trained"] = f"{parameters:,} parameters, {_schedule(trainer)}" if parameters else "nothing"
    rows |= {"device": ", ".join(filter(None, device)), "folder": f"{trainer.output_dir} (config.yaml, log.txt)"}
    return "\n".join(f"{name:9} {value}" for name, value in rows.items())


def _schedule(trainer) -> str:
    """Return the epochs, the steps of each, and the learning rate, as far as they apply."""
    epochs = f"{trainer.max_epoch} epoch{'s' * (trainer.max_epoch != 1)}"
    if trainer.is_fitted:
        return epochs
    batches = len(trainer.train_loader_x or ())
    return f"{epochs} of {batches} batch{'es' * (batches != 1)}, learning rate {trainer.cfg.OPTIM.LR:g}"


def next_commands(trainer, train: list[str]) -> list[list[str]]:
    """Return the words of the commands that a training suggests: a test on new classes, a prediction, and a report.

    Args:
        train: the words that run train.py.
    """
    folder, models = Path(trainer.output_dir), trainer._models.values()
    is_bound = any(hasattr(model, "classnames") for model in models)  # to the classes that it was trained on
    found = []
    if trainer.cfg.DATASET.SUBSAMPLE_CLASSES == "base" and models and not is_bound:
        flags = ["--eval-only", "--model-dir", str(folder), "--classes", "new", "--output-dir", f"{folder}-new"]
        found.append([*train, *flags])
    if (folder / "model.json").is_file() and trainer.tested:
        found.append(["dassl", "predict", str(folder), trainer.tested[0]])
    return [*found, ["dassl", "report", str(folder)]]
