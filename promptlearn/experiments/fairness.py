"""Whether runs that stand side by side had the same chances, by what their results.json say.

The order of the training images and their augmented views are functions of the seed, the draw and INPUT's settings
(dassl.data), so where these agree, all methods saw the same. The class texts (DATASET.PROMPT) are a method's own.
"""

from dassl.config import flatten
from promptlearn.experiments.discovery import result_of
from promptlearn.experiments.protocols import UNTRAINED, Job

SAME_FOR_ALL = ("INPUT", "DATALOADER.TRAIN_X.SAMPLER", "MODEL.BACKBONE.NAME")


def unfair(jobs: list[Job]) -> list[str]:
    """What differs between methods on the same data set, seed, shots and stage, one line for each; none: all is fair.

    Compared are the few-shot draw, the frozen weights, and the settings SAME_FOR_ALL. A run that is not done, or that
    does not say, is left out; of methods that train nothing the weights alone count.
    """
    compared: dict[tuple, dict[str, dict]] = {}
    for job in jobs:
        result = result_of(job)
        if result:
            name = f"{job.row.trainer} {job.row.config} {job.row.variant}".strip()
            key = (job.row.dataset, job.row.shots, job.seed, job.stage.column)
            compared.setdefault(key, {})[name] = chances(result, trained=job.row.trainer not in UNTRAINED)
    found: dict[str, None] = {}  # in the order found
    for (dataset, *_), methods in compared.items():
        for what in dict.fromkeys(key for own in methods.values() for key in own):
            distinct: dict[str, str] = {}  # value -> the first method that has it
            for name, own in methods.items():
                if own.get(what) is not None:
                    distinct.setdefault(str(own[what]), name)
            if len(distinct) > 1:
                (value, name), (other_value, other), *_ = distinct.items()
                found[f"{dataset}: {what} differs: {name} {value}, {other} {other_value}"] = None
    return list(found)


def chances(result: dict, trained: bool) -> dict[str, object]:
    """What has to be alike, by name."""
    alike = {"the weights' hash": result.get("weights_sha256")}
    if trained:
        settings = flatten(result.get("config", {}))
        alike["the few-shot draw"] = result.get("draw_hash")
        alike |= {key: value for key, value in settings.items() if key.startswith(SAME_FOR_ALL)}
    return alike
