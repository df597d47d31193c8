"""Checks of a config's values, made before data are read or weights are loaded."""

import math
import os

from basics import keep_outside
from dassl.config.checks import Checks
from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.datasets.splits import SUBSAMPLES
from dassl.data.samplers import SAMPLERS
from dassl.data.transforms.augmentations import MAX_MAGNITUDE
from dassl.data.transforms.transforms import CHOICES as TRANSFORMS
from dassl.data.transforms.transforms import INTERPOLATION_MODES
from dassl.engine.accelerate import check_text_block
from dassl.engine.compat import run_check_cfg
from dassl.engine.losses import CLASS_WEIGHTS
from dassl.engine.nonfinite import allowed_steps
from dassl.engine.trackers import TRACKERS
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
    "TRAIN.CLASS_WEIGHTS": CLASS_WEIGHTS,
    "TRAIN.TRACKER": ("", *TRACKERS),
    "TEST.FINAL_MODEL": ("last_step", "best_val"),
    "TEST.SPLIT": ("test", "val"),
    "TEST.BAD_IMAGES": ("error", "wrong"),
}
FROM_0 = (
    *("DATALOADER.NUM_WORKERS", "OPTIM.MAX_EPOCH", "OPTIM.LR", "OPTIM.WEIGHT_DECAY", "OPTIM.MOMENTUM", "OPTIM.EPS"),
    *("OPTIM.RMSPROP_ALPHA", "OPTIM.GAMMA", "OPTIM.BASE_LR_MULT", "OPTIM.WARMUP_CONS_LR", "OPTIM.WARMUP_MIN_LR"),
    *("INPUT.CROP_PADDING", "INPUT.CUTOUT_N", "INPUT.CUTOUT_LEN", "INPUT.GN_STD", "INPUT.RANDAUGMENT_N"),
    *("TRAIN.CHECKPOINT_MINUTES", "INPUT.VIEWS", "INPUT.VIEWS_GIB", "DATALOADER.KEEP_GIB", "DATALOADER.FEATURES_GIB"),
    *("MODEL.TEXT_MEMORY", "OPTIM.CLIP_NORM", "TRAIN.PATIENCE", "TRAIN.LABEL_SMOOTHING", "TRAIN.MIXUP", "TRAIN.CUTMIX"),
    *("INPUT.COLORJITTER_B", "INPUT.COLORJITTER_C", "INPUT.COLORJITTER_S"),
)
FROM_1 = (
    *("TRAIN.PRINT_FREQ", "DATALOADER.K_TRANSFORMS", "DATALOADER.TRAIN_X.BATCH_SIZE"),
    *("DATALOADER.TRAIN_U.BATCH_SIZE", "DATALOADER.TEST.BATCH_SIZE", "OPTIM.ACCUMULATE"),
)
PROBABILITIES = ("INPUT.RGS_P", "INPUT.GB_P")
LENGTHS = {"INPUT.SIZE": 2, "INPUT.PIXEL_MEAN": 3, "INPUT.PIXEL_STD": 3, "INPUT.RRCROP_SCALE": 2}
# Options that not every method honors, and their values when they are off.
LOSS_OPTIONS = {"TRAIN.LABEL_SMOOTHING": 0, "TRAIN.CLASS_WEIGHTS": "none", "TRAIN.MIXUP": 0, "TRAIN.CUTMIX": 0}
STEP_OPTIONS = {"OPTIM.CLIP_NORM": 0, "OPTIM.ACCUMULATE": 1, "TRAIN.PATIENCE": 0}
SEEDS = 2**32  # numpy's limit


def check_values(cfg) -> list[str]:
    """Return what is wrong with the values of the engine's own keys, one line per mistake."""
    checks = Checks(cfg)
    for key, value in checks.values.items():
        if isinstance(value, float):
            checks.expect(math.isfinite(value), key, "a finite number", value)
    for key, choices in ONE_OF.items():
        checks.one_of(key, choices)
    checks.at_least(FROM_0 + PROBABILITIES, 0)
    checks.at_least(FROM_1, 1)
    for key in PROBABILITIES:
        checks.at_most(key, 1, "it is a probability")
    for key, length in LENGTHS.items():
        value = checks.values[key]
        checks.expect(len(value) == length, key, f"{length} numbers", value)
    _check_fraction(cfg.DATASET, checks)
    _check_input(cfg.INPUT, checks)
    _check_optim(cfg.OPTIM, checks)
    _check_options(cfg, checks)
    checks.at_most("SEED", SEEDS - 1, "random generators take no larger seed")
    with checks.gather():
        allowed_steps(cfg.TRAIN.ON_NONFINITE)
    with checks.gather():
        check_text_block(cfg.MODEL.TEXT_BLOCK)
    checks.expect(bool(cfg.OUTPUT_DIR.strip()), "OUTPUT_DIR", "a folder", "nothing")
    with checks.gather():
        EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)
    return checks.problems


def check_names(cfg, trainers) -> list[str]:
    """Return a line each if no method of the registry `trainers` is named, and no dataset."""
    checks, methods = Checks(cfg), ", ".join(trainers.registered_names())
    checks.expect(bool(cfg.TRAINER.NAME), "--trainer", f"a method, one of {methods}", "none")
    checks.expect(bool(cfg.DATASET.NAME), "--dataset-config-file", "a dataset, one of configs/datasets/*.yaml", "none")
    for registry, name in ((trainers, cfg.TRAINER.NAME), (DATASET_REGISTRY, cfg.DATASET.NAME)):
        if name:
            with checks.gather():
                registry.get(name)
    if cfg.DATASET.ROOT and _has_own_images(cfg.DATASET.NAME):
        with checks.gather():
            keep_outside(cfg.OUTPUT_DIR, os.path.expanduser(cfg.DATASET.ROOT), "OUTPUT_DIR")
    return checks.problems


def _has_own_images(dataset: str) -> bool:
    names = DATASET_REGISTRY.registered_names()
    return dataset in names and getattr(DATASET_REGISTRY.get(dataset), "own_images", False)


def _check_fraction(options, checks: Checks) -> None:
    fraction, shots = options.TRAIN_FRACTION, options.NUM_SHOTS
    checks.expect(0 < fraction <= 1, "DATASET.TRAIN_FRACTION", "a share above 0 and at most 1", fraction)
    checks.expect(fraction == 1 or shots < 1, "DATASET.NUM_SHOTS", f"-1 with TRAIN_FRACTION {fraction}", shots)


def _check_input(options, checks: Checks) -> None:
    low, *high = options.RRCROP_SCALE or (0,)
    checks.expect(min(options.SIZE, default=0) >= 1, "INPUT.SIZE", "at least 1", options.SIZE)
    checks.expect(min(options.PIXEL_STD, default=0) > 0, "INPUT.PIXEL_STD", "numbers above 0", options.PIXEL_STD)
    checks.expect(
        0 < low <= max(high, default=0) <= 1,
        "INPUT.RRCROP_SCALE",
        "two increasing shares above 0 and at most 1",
        options.RRCROP_SCALE,
    )
    checks.expect(0 <= options.COLORJITTER_H <= 0.5, "INPUT.COLORJITTER_H", "0 to 0.5", options.COLORJITTER_H)
    checks.expect(options.GB_K > 0 and options.GB_K % 2 == 1, "INPUT.GB_K", "an odd number above 0", options.GB_K)
    checks.expect(
        0 <= options.RANDAUGMENT_M <= MAX_MAGNITUDE,
        "INPUT.RANDAUGMENT_M",
        f"0 to {MAX_MAGNITUDE}",
        options.RANDAUGMENT_M,
    )


def _check_optim(options, checks: Checks) -> None:
    for key in ("ADAM_BETA1", "ADAM_BETA2"):
        checks.expect(0 <= options[key] < 1, f"OPTIM.{key}", "at least 0 and below 1", options[key])
    steps = list(options.STEPSIZE)
    if options.LR_SCHEDULER == "multi_step":
        checks.expect(steps == sorted(steps), "OPTIM.STEPSIZE", "increasing epochs", steps)
    checks.expect(bool(steps), "OPTIM.STEPSIZE", "at least one epoch", "none")
    if options.NAME == "sgd" and options.SGD_NESTEROV:
        checks.expect(
            options.MOMENTUM > 0 and options.SGD_DAMPNING == 0,
            "OPTIM.SGD_NESTEROV",
            "OPTIM.MOMENTUM above 0 and OPTIM.SGD_DAMPNING 0",
            f"{options.MOMENTUM} and {options.SGD_DAMPNING}",
        )


def _check_options(cfg, checks: Checks) -> None:
    checks.expect(cfg.TRAIN.LABEL_SMOOTHING < 1, "TRAIN.LABEL_SMOOTHING", "below 1", cfg.TRAIN.LABEL_SMOOTHING)
    ks = list(cfg.TEST.TOP_K)
    checks.expect(all(type(k) is int and k > 0 for k in ks), "TEST.TOP_K", "whole numbers from 1", ks)
    if cfg.TRAIN.PATIENCE > 0:
        validated = cfg.TEST.FINAL_MODEL == "best_val" and not cfg.TEST.NO_TEST
        checks.expect(
            validated,
            "TRAIN.PATIENCE",
            "TEST.FINAL_MODEL best_val and TEST.NO_TEST False (it compares the results on validation images)",
            f"{cfg.TEST.FINAL_MODEL} and {cfg.TEST.NO_TEST}",
        )


def check_method(cfg, trainer) -> list[str]:
    """Return what the method's own `check_cfg` refuses, one line per mistake.

    Args:
        trainer: a trainer that may be empty; nothing but `check_cfg` is called.
    """
    checks = Checks(cfg)
    with checks.gather():
        run_check_cfg(trainer, cfg, checks)
    ignored = (LOSS_OPTIONS if not trainer.honors_loss_options else {}) | (STEP_OPTIONS if trainer.is_fitted else {})
    for key, off in ignored.items():
        reason = f"{off} with {cfg.TRAINER.NAME}, whose training does not use it"
        checks.expect(checks.values[key] == off, key, reason, checks.values[key])
    if trainer.needs_last_epoch:
        reason = f"0 with {cfg.TRAINER.NAME}, whose last epoch completes the model"
        checks.expect(cfg.TRAIN.PATIENCE == 0, "TRAIN.PATIENCE", reason, cfg.TRAIN.PATIENCE)
    return checks.problems
