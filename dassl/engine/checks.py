"""What is wrong with the values of a configuration: asked before data are read or weights are loaded."""

import linecache
import math
import traceback

from dassl.config.checks import Checks
from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.datasets.splits import SUBSAMPLES
from dassl.data.samplers import SAMPLERS
from dassl.data.transforms.augmentations import MAX_MAGNITUDE
from dassl.data.transforms.transforms import CHOICES as TRANSFORMS
from dassl.data.transforms.transforms import INTERPOLATION_MODES
from dassl.engine.blocks import check_text_block
from dassl.engine.nonfinite import allowed_steps
from dassl.evaluation.build import EVALUATOR_REGISTRY
from dassl.optim.lr_scheduler import SCHEDULERS, WARMUPS
from dassl.optim.optimizer import OPTIMIZERS

ONE_OF = {
    "DATASET.SUBSAMPLE_CLASSES": SUBSAMPLES,
    "INPUT.INTERPOLATION": tuple(INTERPOLATION_MODES),
    "INPUT.TRANSFORMS": TRANSFORMS,
    "MODEL.LINEAR": ("auto", "torch", "onednn"),
    "DATALOADER.TRAIN_X.SAMPLER": SAMPLERS,
    "DATALOADER.TRAIN_U.SAMPLER": SAMPLERS,
    "DATALOADER.TEST.SAMPLER": SAMPLERS,
    "OPTIM.NAME": OPTIMIZERS,
    "OPTIM.LR_SCHEDULER": SCHEDULERS,
    "OPTIM.WARMUP_TYPE": WARMUPS,
    "TEST.FINAL_MODEL": ("last_step", "best_val"),
    "TEST.SPLIT": ("test", "val"),
    "TEST.BAD_IMAGES": ("error", "wrong"),
}
FROM_0 = (
    *("DATALOADER.NUM_WORKERS", "OPTIM.MAX_EPOCH", "OPTIM.LR", "OPTIM.WEIGHT_DECAY", "OPTIM.MOMENTUM", "OPTIM.EPS"),
    *("OPTIM.RMSPROP_ALPHA", "OPTIM.GAMMA", "OPTIM.BASE_LR_MULT", "OPTIM.WARMUP_CONS_LR", "OPTIM.WARMUP_MIN_LR"),
    *("INPUT.CROP_PADDING", "INPUT.CUTOUT_N", "INPUT.CUTOUT_LEN", "INPUT.GN_STD", "INPUT.RANDAUGMENT_N"),
    *("TRAIN.CHECKPOINT_MINUTES", "INPUT.VIEWS", "INPUT.VIEWS_GIB", "DATALOADER.KEEP_GIB", "DATALOADER.FEATURES_GIB"),
    "MODEL.TEXT_MEMORY",
    *("INPUT.COLORJITTER_B", "INPUT.COLORJITTER_C", "INPUT.COLORJITTER_S"),
)
FROM_1 = (
    *("TRAIN.PRINT_FREQ", "DATALOADER.K_TRANSFORMS", "DATALOADER.TRAIN_X.BATCH_SIZE"),
    *("DATALOADER.TRAIN_U.BATCH_SIZE", "DATALOADER.TEST.BATCH_SIZE"),
)
PROBABILITIES = ("INPUT.RGS_P", "INPUT.GB_P")
LENGTHS = {"INPUT.SIZE": 2, "INPUT.PIXEL_MEAN": 3, "INPUT.PIXEL_STD": 3, "INPUT.RRCROP_SCALE": 2}
SEEDS = 2**32  # numpy takes no more


def check_values(cfg) -> list[str]:
    """What is wrong with the values of the engine's own keys, one line each."""
    checks = Checks(cfg)
    for key, value in checks.values.items():
        if isinstance(value, float):
            checks.require(math.isfinite(value), f"{key}: expected a finite number, found {value}")
    for key, choices in ONE_OF.items():
        checks.one_of(key, choices)
    for least, keys in ((0, FROM_0), (1, FROM_1)):
        for key in keys:
            checks.at_least(key, least)
    for key in PROBABILITIES:
        checks.at_least(key, 0)
        checks.at_most(key, 1, "it is a probability")
    for key, length in LENGTHS.items():
        value = checks.values[key]
        checks.require(len(value) == length, f"{key}: expected {length} numbers, found {value}")
    _check_input(cfg.INPUT, checks)
    _check_optim(cfg.OPTIM, checks)
    checks.at_most("SEED", SEEDS - 1, "generators take no larger seed")
    with checks.gather():
        allowed_steps(cfg.TRAIN.ON_NONFINITE)
    with checks.gather():
        check_text_block(cfg.MODEL.TEXT_BLOCK)
    checks.require(bool(cfg.OUTPUT_DIR.strip()), "OUTPUT_DIR: expected a folder, found nothing")
    with checks.gather():
        EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)
    return checks.problems


def check_names(cfg, trainers) -> list[str]:
    """Whether a method of the registry `trainers` and a data set are named."""
    checks, methods = Checks(cfg), ", ".join(trainers.registered_names())
    checks.require(bool(cfg.TRAINER.NAME), f"no method given: --trainer, one of {methods}")
    checks.require(bool(cfg.DATASET.NAME), "no data set given: --dataset-config-file, one of configs/datasets/*.yaml")
    for registry, name in ((trainers, cfg.TRAINER.NAME), (DATASET_REGISTRY, cfg.DATASET.NAME)):
        if name:
            with checks.gather():
                registry.get(name)
    return checks.problems


def _check_input(options, checks: Checks) -> None:
    low, *high = options.RRCROP_SCALE or (0,)
    checks.require(min(options.SIZE, default=0) >= 1, f"INPUT.SIZE: expected at least 1, found {options.SIZE}")
    checks.require(
        min(options.PIXEL_STD, default=0) > 0, f"INPUT.PIXEL_STD: expected numbers above 0, found {options.PIXEL_STD}"
    )
    checks.require(
        0 < low <= max(high, default=0) <= 1,
        f"INPUT.RRCROP_SCALE: expected two increasing shares above 0, at most 1, found {options.RRCROP_SCALE}",
    )
    checks.require(
        0 <= options.COLORJITTER_H <= 0.5, f"INPUT.COLORJITTER_H: expected 0 to 0.5, found {options.COLORJITTER_H}"
    )
    checks.require(
        options.GB_K > 0 and options.GB_K % 2 == 1, f"INPUT.GB_K: expected an odd number above 0, found {options.GB_K}"
    )
    checks.require(
        0 <= options.RANDAUGMENT_M <= MAX_MAGNITUDE,
        f"INPUT.RANDAUGMENT_M must lie in 0 .. {MAX_MAGNITUDE}, found {options.RANDAUGMENT_M}",
    )


def _check_optim(options, checks: Checks) -> None:
    for key in ("ADAM_BETA1", "ADAM_BETA2"):
        checks.require(0 <= options[key] < 1, f"OPTIM.{key}: expected at least 0 and below 1, found {options[key]}")
    steps = list(options.STEPSIZE)
    if options.LR_SCHEDULER == "multi_step":
        checks.require(steps == sorted(steps), f"OPTIM.STEPSIZE: expected increasing epochs, found {steps}")
    checks.require(bool(steps), "OPTIM.STEPSIZE: expected at least one epoch, found none")
    if options.NAME == "sgd" and options.SGD_NESTEROV:
        checks.require(
            options.MOMENTUM > 0 and options.SGD_DAMPNING == 0,
            f"OPTIM.SGD_NESTEROV needs OPTIM.MOMENTUM above 0 and OPTIM.SGD_DAMPNING 0, found {options.MOMENTUM} and "
            f"{options.SGD_DAMPNING}",
        )


def check_method(cfg, trainer) -> list[str]:
    """What the method's own `check_cfg` refuses, one line each.

    Args:
        trainer: a trainer of which nothing need be there yet.
    """
    checks = Checks(cfg)
    with checks.gather():
        try:
            trainer.check_cfg(cfg)
        except AssertionError as error:  # how trainer files of the CoOp family say no
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = str(error) or linecache.getline(where.filename, where.lineno).strip()
            checks.problems.append(f"{cfg.TRAINER.NAME} refuses the configuration: {reason}")
    return checks.problems
