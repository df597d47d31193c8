"""Checks in the results.json files whether compared runs had the same conditions.

The order of the training images and their augmentations are functions of the seed, the few-shot sample and INPUT's
settings (dassl.data). Where these agree, all methods saw the same images. The class texts (DATASET.PROMPT) belong to
the method.
"""

from dassl.config import flatten
from promptlearn.experiments.discovery import result_of
from promptlearn.experiments.protocols import UNTRAINED, Job

SAME_FOR_ALL = ("INPUT", "DATALOADER.TRAIN_X.SAMPLER", "MODEL.BACKBONE.NAME")


def unfair(jobs: list[Job]) -> list[str]:
    """Describe each difference between methods on the same dataset, seed, shots, and stage in one line.

    Compares the few-shot sample, the frozen weights and the settings SAME_FOR_ALL, where a run has recorded them. For
    methods that train nothing, only the weights count.
    """
    compared: dict[tuple, dict[str, dict]] = {}
    for job in jobs:
        result = result_of(job)
        if result:
            name = f"{job.row.trainer} {job.row.config} {job.row.variant}".strip()
            key = (job.row.dataset, job.row.shots, job.seed, job.stage.column)
            compared.setdefault(key, {})[name] = conditions(result, trained=job.row.trainer not in UNTRAINED)
    found: dict[str, None] = {}  # ordered
    for (dataset, *_), methods in compared.items():
        for what in dict.fromkeys(key for own in methods.values() for key in own):
            distinct: dict[str, str] = {}  # value -> the first method that has it
            for name, own in methods.items():
                if own.get(what) is not None:
                    distinct.setdefault(str(own[what]), name)
            if len(distinct) > 1:
                (value, name), (other_value, other), *_ = distinct.items()
                values = f"{value} for {name} and {other_value} for {other}"
                found[f"{dataset}: expected one {what} for all methods, got {values}."] = None
    return list(found)


def conditions(result: dict, trained: bool) -> dict[str, object]:
    """Return what has to be the same, by name."""
    alike = {
        "hash of the weights": result.get("weights_sha256"),
        "digest of the test images": result.get("data_sha256", {}).get("test"),
    }
    if trained:
        settings = flatten(result.get("config", {}))
        alike["few-shot sample"] = result.get("draw_hash")
        images = result.get("data_sha256", {})
        alike |= {f"digest of the {part} images": images.get(part) for part in ("train", "val")}
        alike |= {key: value for key, value in settings.items() if key.startswith(SAME_FOR_ALL)}
    return alike
