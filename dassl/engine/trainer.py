"""The trainers that methods derive from: `TrainerX`, whose epoch is a pass over labelled batches.

A method says how its model is built (`build_model`) and what a step is (`forward_backward`); it steps the learning-rate
schedule itself, by `update_lr()` in the last batch of an epoch.
"""

import time
from datetime import timedelta

import torch
from tqdm import tqdm

from basics import UserError
from dassl.engine.base import TrainerBase, summary_writer
from dassl.engine.run import SimpleTrainer
from dassl.utils import AverageMeter, MetricMeter, get_random_state, set_random_state

__all__ = ["AverageMeter", "MetricMeter", "SimpleTrainer", "SummaryWriter", "TrainerBase", "TrainerX"]


def SummaryWriter(*args, **kwargs):
    """TensorBoard's class of that name. TensorBoard is an extra: it is imported here, when a writer is made."""
    return summary_writer()(*args, **kwargs)


class TrainerX(SimpleTrainer):
    """A trainer whose epoch is one pass over the labelled training images."""

    def run_epoch(self):
        self.set_model_mode("train")
        losses, batch_time, data_time = self.progress.losses, AverageMeter(), AverageMeter()
        self.num_batches = len(self.train_loader_x)
        frequency = self.cfg.TRAIN.PRINT_FREQ
        end = time.time()
        for batch in self._batches():
            self.batch_idx = self.progress.batches
            data_time.update(time.time() - end)
            self._step(batch)
            batch_time.update(time.time() - end)
            done = self.batch_idx + 1
            if done % frequency == 0 or self.num_batches < frequency:
                self._print_progress(losses, batch_time, data_time)
            if self._writer is not None:
                step = self.epoch * self.num_batches + self.batch_idx
                for name, meter in losses.meters.items():
                    self.write_scalar(f"train/{name}", meter.avg, step)
                if self.get_current_lr() is not None:
                    self.write_scalar("train/lr", self.get_current_lr(), step)
            self._save_in_between()
            end = time.time()
        self.watch.settle()
        self.epoch_summary = {name: meter.avg for name, meter in losses.meters.items()}

    def _batches(self):
        """The epoch's batches; when a run goes on in the middle of an epoch, those that are left."""
        done, now = self.progress.batches, get_random_state()
        if done:
            # A loader may draw the order, or noise, from the global streams: it is run again up to here.
            set_random_state(self.progress.random)
        else:
            self.progress.random = now
        batches = iter(self.train_loader_x)
        for _ in range(done):
            next(batches)
        if done:
            set_random_state(now)
        return batches

    def _step(self, batch):
        self.open_step(batch)
        skipped = self.watch.skipped
        summary = self.forward_backward(batch)
        if not self.loss_seen:
            self._look_at(summary)
        if self.watch.skipped == skipped:
            self.progress.losses.update(summary)
        self.progress.batches += 1

    def _look_at(self, summary):
        """For methods that step on their losses themselves: look at those that they report."""
        losses = [torch.as_tensor(value) for name, value in (summary or {}).items() if "loss" in name]
        if any(self.detect_anomaly(loss) for loss in losses):
            raise UserError(
                f"{self.cfg.TRAINER.NAME} steps on its loss by itself, so that the step on an infinite or NaN one "
                "cannot be left out: TRAIN.ON_NONFINITE stop"
            )

    def _save_in_between(self):
        minutes = self.cfg.TRAIN.CHECKPOINT_MINUTES
        if self.signals.asked or (minutes > 0 and time.time() - self._saved_at >= 60 * minutes):
            self._save_state()
        self.signals.stop_if_asked(f"after epoch {self.epoch + 1}, batch {self.batch_idx + 1}")

    def _print_progress(self, losses, batch_time, data_time):
        done, lr = self.batch_idx + 1, self.get_current_lr()
        left = self.num_batches - done + (self.max_epoch - self.epoch - 1) * self.num_batches
        parts = [
            f"epoch [{self.epoch + 1}/{self.max_epoch}]",
            f"batch [{done}/{self.num_batches}]",
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f})",
            f"data {data_time.val:.3f} ({data_time.avg:.3f})",
            str(losses),
            f"lr {lr:.4e}" if lr is not None else "",
            f"eta {timedelta(seconds=int(batch_time.avg * left))}",
        ]
        tqdm.write(" ".join(part for part in parts if part))

    def parse_batch_train(self, batch):
        """Images, labels and domains of a training batch, on the device."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))
