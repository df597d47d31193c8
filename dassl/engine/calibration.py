"""What a run measures besides its metrics: a temperature and thresholds on validation images, and unknown classes."""

from typing import Any

import torch
from torch import Tensor

from basics import UserError, notify
from dassl.metrics.calibration import fit_temperature, measure_calibration
from dassl.metrics.rejection import RULES, fit_threshold, measure_rejection
from dassl.utils import free_memory

COPIES = 3  # of all logits at once: themselves, divided by the temperature, and their softmax


def refuse_large_logits(trainer) -> None:
    """Raise a UserError if the logits that TEST.CALIBRATE and TEST.UNKNOWNS keep would not fit into memory."""
    options = trainer.cfg.TEST
    if not options.CALIBRATE and not options.UNKNOWNS:
        return
    loaders = [trainer.test_loader, trainer.val_loader if options.CALIBRATE else None]
    images = sum(len(getattr(loader, "dataset", ())) for loader in loaders)
    size = COPIES * images * trainer.num_classes * torch.float64.itemsize
    free = free_memory(torch.device("cpu"))
    if size > free:
        raise UserError(
            f"TEST.CALIBRATE, TEST.UNKNOWNS: expected logits that fit into the {free / 2**30:.1f} GiB of free memory, "
            f"got those of {images:,} images and {trainer.num_classes:,} classes, {size / 2**30:.1f} GiB. Set both "
            "False, or test on fewer images."
        )


def logits_of(trainer, loader, name: str) -> tuple[Tensor, Tensor]:
    """Compute the logits (N, C), in float64 on the CPU, and the labels (N,) of a loader's readable images.

    Raises:
        UserError: no image can be read.
        Stopped: a stop was requested; the training is saved.
    """
    logits, labels = [], []
    with trainer.evaluation():
        for of_batch, true, _ in trainer.infer(loader, name):
            logits.append(of_batch.double().cpu())
            labels.append(true.cpu())
            trainer.stop_if_requested("in the test after the training")
    readable = torch.cat(labels) >= 0
    if not readable.any():
        raise UserError(
            f"{name}: expected images, got {len(readable)} files, none of which could be read. "
            "Replace the damaged ones."
        )
    return torch.cat(logits)[readable], torch.cat(labels)[readable]


def calibrate(trainer) -> dict | None:
    """Fit the temperature and the rejection thresholds on the validation images (TEST.CALIBRATE).

    Returns:
        {temperature, n, nll_before, nll_after, ece_before, ece_after, test_ece_after, thresholds: {rule: score}}: n and
        the figures before and after are the validation images'; ECE in percent; test_ece_after is None without a test.
        None without validation images.
    """
    if trainer.val_loader is None:
        notify("Note: no temperature was fitted, because the dataset has no validation images")
        return None
    logits, labels = logits_of(trainer, trainer.val_loader, "calibrate")
    fitted = fit_temperature(logits, labels)
    if fitted is None:
        notify("Note: the temperature stays 1; all predictions on the validation images are correct, or chance")
    temperature = fitted or 1.0
    figures: dict[str, Any] = {"temperature": temperature, "n": len(labels)}
    for name, value in (("before", 1.0), ("after", temperature)):
        nll, error = measure_calibration(logits, labels, value)
        figures |= {f"nll_{name}": nll, f"ece_{name}": percent(error)}
    tested = trainer.evaluator.logits()
    figures["test_ece_after"] = percent(measure_calibration(tested[0], tested[1], temperature)[1]) if tested else None
    figures["thresholds"] = {rule: fit_threshold(score(logits, temperature)) for rule, score in RULES.items()}
    print(f"Temperature {temperature:.3g}: ECE {figures['ece_before']:.1f}% before, {figures['ece_after']:.1f}% after")
    return figures


def percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def measure_unknowns(trainer, temperature: float) -> dict | None:
    """Measure how well the scores of the last test's images separate them from the new classes' (TEST.UNKNOWNS).

    Returns:
        {known, unknown: numbers of images, and for each rule: as `measure_rejection`}; None without a test.
    """
    tested = trainer.evaluator.logits()
    if not tested:
        return None
    known = tested[0]
    unknown, _ = logits_of(trainer, trainer.unknown_loader(), "unknown classes")
    found: dict[str, Any] = {"known": len(known), "unknown": len(unknown)}
    for rule, score in RULES.items():
        found[rule] = measure_rejection(score(known, temperature), score(unknown, temperature))
        print(f"Unknown classes, {rule}: AUROC {found[rule]['auroc']:.1f}%, FPR {found[rule]['fpr95']:.1f}% at 95% TPR")
    return found
