"""The learning-rate range test: Smith, Cyclical Learning Rates for Training Neural Networks, arXiv 1506.01186.

The rate grows from step to step by a constant factor. A good one is well below the rate at which the smoothed loss is
lowest, after which it rises: a tenth of it.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch

from basics import NonFiniteLoss, UserError, write_atomic
from basics.csv_files import csv_text

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 100
SMOOTHING = 0.9  # weight of the loss before, in the smoothed loss
UNTRAINED = 10  # steps at rates that change nothing yet: their losses differ by their batches alone
DIVERGED = 4.0  # the test ends when the smoothed loss is so many times the largest of those
MARGIN = 10  # the rate of the lowest loss is divided by it
FILE = "lr_finder.csv"


def find_lr(trainer, lowest: float = LOWEST, highest: float = HIGHEST, steps: int = STEPS) -> float:
    """Run the test on an untrained method, write `lr_finder.csv`, and return the learning rate to try.

    The method is trained by it, so the trainer is of no further use; no checkpoint is written.

    Raises:
        UserError: the method makes no steps, or its folder holds a run, or the loss never fell.
    """
    trainer.record.refuse_if_trained_here()
    optims = [optim for optim in trainer._optims.values() if optim is not None]
    if not optims:
        raise UserError(f"--find-lr: expected a method that makes steps, got {trainer.cfg.TRAINER.NAME}.")
    trainer.before_train()
    trainer.set_model_mode("train")
    trainer.num_batches = steps * trainer.accumulate + 1  # the last batch, which steps the schedule, is never reached
    groups = [group for optim in optims for group in optim.param_groups]
    ratios = [group["lr"] / groups[0]["lr"] for group in groups]
    batches, smoothed = _endless(trainer), 0.0
    rows: list[dict[str, float]] = []
    for step in range(steps):
        lr = lowest * (highest / lowest) ** (step / (steps - 1))
        for group, ratio in zip(groups, ratios, strict=True):
            group["lr"] = lr * ratio
        try:
            losses = []
            for batch in range(trainer.accumulate):
                trainer.batch_idx = step * trainer.accumulate + batch
                trainer.open_step(data := next(batches))
                losses.append(float(torch.as_tensor(trainer.forward_backward(data)["loss"]).detach()))
            trainer.watch.settle()
        except NonFiniteLoss:
            break
        loss = sum(losses) / len(losses)
        smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss
        corrected = smoothed / (1 - SMOOTHING ** (step + 1))
        rows.append({"lr": lr, "loss": loss, "smoothed": corrected})
        trainer.signals.stop_if_requested("in the learning-rate test")
        if not corrected <= DIVERGED * max(row["smoothed"] for row in rows[:UNTRAINED]):
            break
    write_atomic(Path(trainer.output_dir) / FILE, csv_text(rows).encode())
    found = suggest(rows)
    print(f"Learning rate to try: {found:.2g} (--lr {found:.2g}); the losses are in {FILE}")
    return found


def suggest(rows: list[dict[str, float]]) -> float:
    """Return a tenth of the rate at which the smoothed loss is lowest.

    Raises:
        UserError: it is never lower than at the rates that change nothing.
    """
    untrained, trained = rows[:UNTRAINED], rows[UNTRAINED:]
    before = sum(row["loss"] for row in untrained) / len(untrained)
    lowest = min(trained, key=lambda row: row["smoothed"], default=untrained[0])
    if not trained or lowest["smoothed"] >= before:
        raise UserError(f"--find-lr: expected a loss that falls at some rate, got one that does not. See {FILE}.")
    return lowest["lr"] / MARGIN


def _endless(trainer) -> Iterator[dict]:
    """Yield training batches, epoch after epoch."""
    for trainer.epoch in count():
        trainer._set_sampler_epoch()
        yield from trainer.train_loader_x
