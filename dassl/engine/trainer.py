"""A run from its config to its results: epochs, batches, steps, checkpoints, test.

A method subclasses `TrainerX`. It builds its model in `build_model` and makes one step in `forward_backward`, where it
also steps the learning-rate schedule, by `update_lr()` in the last batch of an epoch.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn

from basics import NotApplicable, StopSignals, UserError, details, log, notify, show_progress
from dassl.config import flatten
from dassl.data import DataManager
from dassl.engine import compat, distributed
from dassl.engine.calibration import calibrate, measure_unknowns, refuse_large_logits
from dassl.engine.checkpoints import BEST_FILE, locate_model
from dassl.engine.checks import check_method, check_values
from dassl.engine.compat import SummaryWriter
from dassl.engine.models import TrainerBase
from dassl.engine.nonfinite import LossWatch, allowed_steps
from dassl.engine.origin import describe_data, describe_training
from dassl.engine.progress import TrainingBar
from dassl.engine.record import RunRecord
from dassl.engine.state import keep_threads
from dassl.engine.trackers import open_tracker
from dassl.evaluation import build_evaluator
from dassl.utils import AverageMeter, MetricMeter, sample_seed, set_random_seed

# The CoOp family imports all of these from here.
__all__ = ["AverageMeter", "MetricMeter", "SimpleTrainer", "SummaryWriter", "TrainerBase", "TrainerX"]


class TrainerX(TrainerBase):
    """A run: config, data, model, training on labeled images, test.

    Attributes that methods use: cfg, device, dm, train_loader_x, train_loader_u, val_loader, test_loader, num_classes,
    lab2cname, epoch and batch_idx (from 0), num_batches, max_epoch, output_dir; after `build_model` also evaluator and
    best_result. A method may set `weights_sha256`, the digest of its frozen weights; it is recorded in the results.
    """

    model: nn.Module
    for_this_engine = False  # whether it is written for this engine; other files get the support of `engine.compat`
    honors_loss_options = False  # whether its loss follows TRAIN.LABEL_SMOOTHING, CLASS_WEIGHTS, MIXUP, and CUTMIX
    is_fitted = False  # whether it is trained otherwise than by optimizer steps
    needs_last_epoch = False  # whether its last epoch completes the model, so that it must not stop before

    # ---- build

    def __init__(self, cfg):
        super().__init__()
        if problems := check_values(cfg) + check_method(cfg, self):
            raise UserError("\n".join(problems))
        self.cfg = _with_seed(cfg)
        if distributed.size() > 1 and (reason := distributed.check_method(self)):
            raise UserError(reason)
        self.device = device_of(cfg)
        self.start_epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.clip_norm, self.accumulate = cfg.OPTIM.CLIP_NORM, cfg.OPTIM.ACCUMULATE
        keep_threads(cfg)
        self.watch = LossWatch(allowed_steps(cfg.TRAIN.ON_NONFINITE))
        self.signals = StopSignals()
        self.record = RunRecord(self)
        self.bar = TrainingBar()
        self.tested: list[str] = []  # paths of the images of the last test
        self.training_data = ""  # in words; empty: this run's data

        self.build_data_loader()
        if cfg.TEST.FINAL_MODEL == "best_val" and self.val_loader is None:
            raise UserError(
                f"TEST.FINAL_MODEL: expected last_step, got best_val; the dataset {cfg.DATASET.NAME} has no validation "
                "images."
            )
        refuse_large_logits(self)
        self.build_model()
        self.evaluator = build_evaluator(self.cfg, lab2cname=self.lab2cname)
        self.best_result = float("-inf")

    def check_cfg(self, cfg):
        """Refuse a config, by a UserError with one line per mistake (or by an assertion).

        It is called before anything else exists, even `self.cfg`, and possibly more than once.
        """

    def build_data_loader(self):
        """Create the data manager and take its loaders and class names."""
        if distributed.size() > 1:
            self.dm = DataManager(self.cfg, batches=distributed.SharedBatches)
        else:
            self.dm = DataManager(self.cfg)
        self.train_loader_x = self.dm.train_loader_x
        self.train_loader_u = self.dm.train_loader_u
        self.val_loader = self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes = self.dm.num_classes
        self.num_source_domains = self.dm.num_source_domains
        self.lab2cname = self.dm.lab2cname

    def build_model(self):
        """Create the model (`self.model`), its optimizer and its schedule, and register them."""
        raise NotImplementedError

    def needs_whole_batches(self) -> bool:
        """Return whether its step, or its fit, needs all images of a batch in one process."""
        return False

    def auto_settings(self) -> dict:
        """Return what settings on "auto" were set to on this machine (numbers or strings); a resumed run keeps them."""
        return {}

    def keep_auto_settings(self, auto_settings: dict) -> None:
        """Take over the `auto_settings` of the run that this one resumes."""

    def method_state(self) -> dict[str, torch.Tensor]:
        """Return what the rest of the run depends on besides the registered models and optimizers."""
        return {}

    def load_method_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over the `method_state` of the run that this one resumes."""

    def describe_model(self) -> dict | None:
        """Return what is needed to use the model without its dataset, for model.json; None if that is not known."""
        return None

    def count_gflop(self) -> dict[str, float | None] | None:
        """Return the 10^9 operations of a "training_step" and of a "test_image", for results.json; None if unknown."""
        return None

    # ---- train

    def train(self):
        """Train from the last saved state, test, and write `results.json`.

        Raises:
            Stopped: Ctrl-C or SIGTERM arrived; the state was saved after the current step.
        """
        with StopSignals() as self.signals:
            self.before_train()
            self._open_tracker()
            with self.bar.open(self):
                for epoch in range(self.start_epoch, self.max_epoch):
                    if self.record.stopped_early():
                        break
                    self.epoch = epoch
                    self._set_sampler_epoch()
                    self.record.open_epoch()
                    self.before_epoch()
                    self.run_epoch()
                    self.watch.settle()  # nothing is tested or saved after a bad loss
                    self.after_epoch()
                    self.bar.show(self)
                    self.record.close_epoch()
                    self.stop_if_requested(f"after epoch {epoch + 1}")
            self.after_train()

    def before_train(self):
        """Seed the global random streams, and resume the run if there is one."""
        if not self._models:
            log("The method trains nothing; testing only")
            self.max_epoch = 0
        elif getattr(self.dm.dataset, "test_only", False):
            name, other = self.cfg.DATASET.NAME, "Train on another one, such as ImageNet"
            raise UserError(
                f"DATASET.NAME: expected a dataset with training images, got {name}, which is for testing only. "
                f"{getattr(self.dm.dataset, 'how_to_train', other)}, and test on this one with --eval-only --model-dir."
            )
        if self._models and distributed.size() > 1:
            distributed.check_batches(self.train_loader_x)
        # What is sampled during training (by dropout) depends on the seed alone, not on what was sampled before.
        set_random_seed(self.cfg.SEED)
        folder = self.record.folder_to_resume()
        self.start_epoch = self.resume_model_if_exist(folder)
        self.record.start(folder)
        self.time_start = time.monotonic()

    def _open_tracker(self):
        kind = self.cfg.TRAIN.TRACKER or ("tensorboard" if self.cfg.TRAIN.TENSORBOARD else "")
        if kind and self._writer is None:
            self._writer = open_tracker(kind, Path(self.output_dir), flatten(self.cfg))

    def resume_model_if_exist(self, directory) -> int:
        """Restore the state of the run in `directory`, if there is one, and return the number of complete epochs.

        Raises:
            UserError: the state is damaged or belongs to another config.
        """
        return self.record.restore(directory)

    def _set_sampler_epoch(self):
        sampler = getattr(self.train_loader_x, "sampler", None)
        if sampler is not None and hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self.epoch)

    def before_epoch(self):
        """Do nothing; for methods to override."""

    def run_epoch(self):
        """Make one step per labeled training batch; in a resumed epoch, on the batches that are left."""
        self.set_model_mode("train")
        self.num_batches = len(self.train_loader_x)
        batch_time, data_time = AverageMeter(), AverageMeter()
        batches = self.record.remaining_batches(self.train_loader_x)
        start = time.monotonic()
        for batch_idx, batch in enumerate(batches, start=self.record.progress.batches):
            self.batch_idx = batch_idx
            data_time.update(time.monotonic() - start)
            self._run_step(batch)
            batch_time.update(time.monotonic() - start)
            self._print_step(batch_time, data_time)
            self.bar.show(self, batch_idx + 1)
            self.record.log_step()
            # Read once: a later signal waits for the next step. A state has no gradients, so it waits for all batches.
            stop = self.stop_requested() and self.ends_step
            if self.ends_step:
                self.record.save_if_due(stop)
            if stop:
                self.signals.stop_if_requested(f"after epoch {self.epoch + 1}, batch {batch_idx + 1}")
            start = time.monotonic()

    def stop_requested(self) -> bool:
        """Return whether a stop signal has arrived, here or in another process."""
        if distributed.any_process(self.signals.requested is not None):
            self.signals.requested = self.signals.requested or signal.SIGTERM
        return self.signals.requested is not None

    def stop_if_requested(self, where: str) -> None:
        """Raise Stopped if a stop signal has arrived, here or in another process."""
        if self.stop_requested():
            self.signals.stop_if_requested(where)

    def _run_step(self, batch):
        self.open_step(batch)
        skipped = self.watch.skipped
        if distributed.size() > 1:
            self.share_of_batch = len(batch["label"]) / self.train_loader_x.batch_sampler.whole(self.batch_idx)
        summary = self.forward_backward(batch)
        if distributed.size() > 1:
            summary = distributed.weighted_means(summary, self.share_of_batch)
        if not self.loss_seen:
            compat.check_reported_losses(self, summary)
        self.record.progress.add_step(summary if self.watch.skipped == skipped else None)

    def forward_backward(self, batch):
        """Make one training step; return a dict of numbers or one-element tensors to report, or None."""
        raise NotImplementedError

    def parse_batch_train(self, batch):
        """Return images, labels and domains of a training batch, on the device."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))

    def _print_step(self, batch_time, data_time):
        done, frequency = self.batch_idx + 1, self.cfg.TRAIN.PRINT_FREQ
        if done % frequency and self.num_batches >= frequency:
            return
        lr = self.get_current_lr()
        left = self.num_batches - done + (self.max_epoch - self.epoch - 1) * self.num_batches
        parts = [
            f"epoch [{self.epoch + 1}/{self.max_epoch}]",
            f"batch [{done}/{self.num_batches}]",
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f})",
            f"data {data_time.val:.3f} ({data_time.avg:.3f})",
            str(self.record.progress.losses),
            f"lr {lr:.4e}" if lr is not None else "",
            f"eta {timedelta(seconds=int(batch_time.avg * left))}",
        ]
        # On a terminal, the bar shows it; elsewhere, one line of a short epoch is enough.
        show = log if self.bar.replaces_lines or (done % frequency and done < self.num_batches) else print
        show(" ".join(part for part in parts if part))

    def after_epoch(self):
        """Validate if the best epoch is to be tested, and write the checkpoints that are due."""
        cfg, done = self.cfg, self.epoch + 1
        if cfg.TEST.FINAL_MODEL == "best_val" and not cfg.TEST.NO_TEST:
            result = self.test(split="val")
            self.record.val_accuracy = result
            if result > self.best_result:
                self.best_result = result
                self.record.best_val = self.evaluator.summary()
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=BEST_FILE)
        frequency = cfg.TRAIN.CHECKPOINT_FREQ
        if done == self.max_epoch or self.record.stopped_early() or (frequency > 0 and done % frequency == 0):
            self.save_model(self.epoch, self.output_dir)

    def after_train(self):
        """Test the final model and write the results."""
        # Both lines, because the family's log parsers wait for one or the other.
        log("Finish training")
        log("Finished training")
        metrics = seconds = None
        if self.test_loader is None:
            notify("No test images: nothing is tested")
        elif not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                log("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            metrics, seconds = self._test_and_record()
        print(f"Elapsed: {timedelta(seconds=round(time.monotonic() - self.time_start))}")
        self.record.write_results("train", metrics, seconds, **self._calibrate())
        self.close_writer()

    # ---- test

    def evaluate(self, directory, epoch=None):
        """Load a trained model (see `load_model`), test it, and write `results.json`; this is --eval-only.

        Raises:
            NotApplicable: the model is bound to other classes; the results record it, too.
        """
        self.record.refuse_if_trained_here()
        directory, epoch = self.locate_model(directory, epoch)
        model_dir = str(directory) if directory else None
        try:
            epoch = self.load_for_test(directory, epoch)
        except NotApplicable:
            self.record.write_config()
            self.record.write_results("eval", None, None, status="n/a", model_dir=model_dir)
            raise
        self.record.write_config()
        metrics, seconds = self._test_and_record()
        self.record.write_results("eval", metrics, seconds, **self._calibrate(), model_dir=model_dir, load_epoch=epoch)

    def load_for_test(self, directory, epoch=None) -> int | None:
        """Load a trained model (see `load_model`) and return its epoch; None if the method trains nothing.

        Raises:
            UserError: there is no such model, or `directory` is empty.
        """
        if not directory and self._models:
            raise UserError(
                f"--model-dir: expected the output folder of a trained run, got nothing; {self.cfg.TRAINER.NAME} has "
                "to be trained first."
            )
        run, epoch = self.locate_model(directory, epoch)
        epoch = compat.load_model(self, run, epoch)
        if directory:
            self.training_data = describe_training(run)
        return epoch

    def locate_model(self, directory, epoch=None):
        """Return the run that a path points at, and the epoch; see `checkpoints.locate_model`."""
        names = self.get_model_names()
        return locate_model(directory, names, epoch) if directory and names else (directory, epoch)

    def _print_data(self):
        """Print what was trained on what, and what it is tested on."""
        settings, names = flatten(self.cfg), list(self.lab2cname.values())
        trained_on = self.training_data or describe_data(settings, names, trained=True)
        trained = f"{self.cfg.TRAINER.NAME}, trained on {trained_on}" if self._models else "Nothing trained"
        print(f"{trained}; tested on {describe_data(settings, names, trained=False)}")
        if len(names) == 1:
            notify("Note: the test has a single class, so its accuracy says nothing about telling classes apart")

    def _test_and_record(self):
        """Return the evaluator's summary and the seconds that the test took."""
        start = time.monotonic()
        self.test()
        seconds = time.monotonic() - start
        self._print_data()  # after the lines that the family's parsers read
        self.record.write_predictions(self.evaluator.predictions(), self.tested)
        return self.evaluator.summary(), seconds

    def _calibrate(self) -> dict[str, dict | None]:
        """Return what TEST.CALIBRATE and TEST.UNKNOWNS add to the results, after the test."""
        options = self.cfg.TEST
        calibration = calibrate(self) if options.CALIBRATE else None
        unknowns = None
        if options.UNKNOWNS and self.cfg.DATASET.SUBSAMPLE_CLASSES == "base":
            unknowns = measure_unknowns(self, calibration["temperature"] if calibration else 1.0)
        return {"calibration": calibration, "unknowns": unknowns}

    def unknown_loader(self):
        """Return a loader of the new classes' test images, for a model of the base classes."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATASET.SUBSAMPLE_CLASSES, cfg.VERBOSE = "new", False
        return DataManager(cfg).test_loader

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Prepare the model for tests inside, without gradients; for methods to extend."""
        self.set_model_mode("eval")
        with torch.no_grad():
            yield

    def test(self, split=None):
        """Measure the model on a split: "test", or "val" if there is one; None for TEST.SPLIT.

        Returns:
            float: the evaluator's first result (accuracy, percent).
        """
        self.evaluator.reset()
        self.tested = []
        is_final = split is None  # otherwise it is a short measurement during training, and the epoch is finished first
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is not None:
            loader = self.val_loader
        else:
            split, loader = "test", self.test_loader
        if loader is None:
            raise UserError(f"DATASET.NAME: expected test images in {self.cfg.DATASET.NAME}, got none.")
        log(f"Evaluate on the *{split}* set")
        with self.evaluation():
            for logits, labels, impaths in self.infer(loader, split):
                self.evaluator.process(logits, labels)
                self.tested += impaths
                if is_final:
                    self.stop_if_requested("in the test after the training")
        with nullcontext() if is_final else details():
            results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        return next(iter(results.values()))

    def infer(self, loader, name: str) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """Yield logits (B, C), labels (B,), and paths of the images of each batch, inside `evaluation`.

        Several processes share the images of a batch, and all of them get the whole result.
        """
        for number, batch in enumerate(show_progress(loader, name, unit="batch")):
            images, labels = self.parse_batch_test(batch)
            logits, impaths = self.model_inference(images), batch.get("impath", [])
            if distributed.size() > 1:
                n, items = loader.batch_sampler.whole(number), loader.dataset.data_source
                logits, labels = distributed.join_rows(logits, n), distributed.join_rows(labels, n)
                indices = distributed.join_rows(batch["index"].to(self.device), n)
                impaths = [items[index].impath for index in indices.tolist()]
            yield logits, labels, impaths

    def model_inference(self, input):
        """Return logits (B, C) of images (B, 3, H, W)."""
        return self.model(input)

    def parse_batch_test(self, batch):
        """Return images and labels of a test batch, on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)


SimpleTrainer = TrainerX  # Dassl's name for a trainer without its own idea of an epoch


def device_of(cfg) -> torch.device:
    """Return the device of a run: the GPU if there is one and USE_CUDA is True, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")


def _with_seed(cfg):
    """Return the config itself if it has a seed, else a copy with a sampled one, which is also set."""
    if cfg.SEED >= 0:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SEED = sample_seed()
    cfg.freeze()
    set_random_seed(cfg.SEED)
    return cfg
