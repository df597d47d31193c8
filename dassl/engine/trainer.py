"""Trainers: a run (`SimpleTrainer`), and an epoch over labelled batches (`TrainerX`).

A method derives from `TrainerX` and says how its model is built (`build_model`) and what a step is
(`forward_backward`); it steps the learning-rate schedule itself, by `update_lr()` in the last batch of an epoch.
"""

import random
import time
from datetime import timedelta
from pathlib import Path

import torch
from tqdm import tqdm

from dassl.data import DataManager
from dassl.engine import checkpoints
from dassl.engine.base import TrainerBase, summary_writer
from dassl.engine.results import collect_results, write_metrics
from dassl.evaluation import build_evaluator
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    MissingFile,
    UserError,
    mkdir_if_missing,
    set_random_seed,
    write_atomic,
    write_json,
)

__all__ = ["AverageMeter", "MetricMeter", "SimpleTrainer", "SummaryWriter", "TrainerBase", "TrainerX"]


def SummaryWriter(*args, **kwargs):
    """TensorBoard's class of that name. TensorBoard is an extra: it is imported here, when a writer is made."""
    return summary_writer()(*args, **kwargs)


class SimpleTrainer(TrainerBase):
    """A run: configuration, data, model, training with checkpoints, test, results.

    Attributes that methods use: cfg, device, dm, train_loader_x, train_loader_u, val_loader, test_loader, num_classes,
    lab2cname, epoch (from 0), max_epoch, output_dir; after `build_model` also evaluator and best_result.
    A method may set `weights_sha256`, the digest of its frozen weights; it is noted in the results.
    """

    def __init__(self, cfg):
        super().__init__()
        self.check_cfg(cfg)
        _check_values(cfg)
        self.cfg = _with_seed(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.batch_idx = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.rows = []  # of metrics.csv
        self.epoch_summary = {}
        self.best_val = None  # the evaluator's summary on the validation set, of the best epoch

        self.build_data_loader()
        if cfg.TEST.FINAL_MODEL == "best_val" and self.val_loader is None:
            raise UserError(f"TEST.FINAL_MODEL best_val: the data set {cfg.DATASET.NAME} has no validation set")
        self.build_model()
        self.evaluator = build_evaluator(self.cfg, lab2cname=self.lab2cname)
        self.best_result = float("-inf")

    def check_cfg(self, cfg):
        """Check the configuration; called before anything else, not even `self.cfg` is there."""

    def build_data_loader(self):
        """Make the data manager and take over its loaders and class names."""
        self.dm = DataManager(self.cfg)
        self.train_loader_x = self.dm.train_loader_x
        self.train_loader_u = self.dm.train_loader_u
        self.val_loader = self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes = self.dm.num_classes
        self.num_source_domains = self.dm.num_source_domains
        self.lab2cname = self.dm.lab2cname

    def build_model(self):
        """Make the model, its optimiser and its schedule, and register them."""
        raise NotImplementedError

    # ---- training

    def train(self):
        """Train, test, and write `results.json`. A run that was stopped goes on after its last complete epoch."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self):
        if not self._models:
            print("The method trains nothing: it is tested only")
            self.max_epoch = 0
        elif getattr(self.dm.dataset, "test_only", False):
            raise UserError(
                f"{self.cfg.DATASET.NAME} is for testing only: its images are the test images. Train on another data "
                "set, such as ImageNet, and test here with --eval-only --model-dir"
            )
        # What is drawn in training (dropout) depends on the seed alone, not on what was drawn before.
        set_random_seed(self.cfg.SEED)
        self.start_epoch = self.resume_model_if_exist(self._resume_from())
        self._write_config()
        if self.cfg.TRAIN.TENSORBOARD:
            self.init_writer(Path(self.output_dir) / "tensorboard")
        self.time_start = time.time()

    def _resume_from(self):
        cfg, own_state = self.cfg, Path(self.output_dir) / checkpoints.STATE_FILE
        if own_state.is_file():
            if not cfg.TRAIN.RESUME:
                raise UserError(
                    f'"{self.output_dir}" holds a run, and TRAIN.RESUME is False: choose another --output-dir, '
                    "or delete that folder"
                )
            return self.output_dir
        if cfg.RESUME and not (Path(cfg.RESUME) / checkpoints.STATE_FILE).is_file():
            raise UserError(f'there is no run to resume in "{cfg.RESUME}": expected {checkpoints.STATE_FILE} in it')
        return cfg.RESUME or self.output_dir

    def _write_config(self):
        mkdir_if_missing(self.output_dir)
        write_atomic(Path(self.output_dir) / "config.yaml", self.cfg.dump().encode())

    def open_epoch(self):
        super().open_epoch()
        self._row_lr, self._row_val, self._epoch_start = self.get_current_lr(), None, time.time()
        sampler = getattr(self.train_loader_x, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self.epoch)

    def after_epoch(self):
        cfg, done = self.cfg, self.epoch + 1
        if cfg.TEST.FINAL_MODEL == "best_val" and not cfg.TEST.NO_TEST:
            result = self.test(split="val")
            self._row_val = result
            if result > self.best_result:
                self.best_result = result
                self.best_val = self.evaluator.summary()
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=checkpoints.BEST_FILE)
        frequency = cfg.TRAIN.CHECKPOINT_FREQ
        if done == self.max_epoch or (frequency > 0 and done % frequency == 0):
            self.save_model(self.epoch, self.output_dir)

    def close_epoch(self):
        row = {"epoch": self.epoch + 1, **self.epoch_summary, "lr": self._row_lr}
        row["seconds"] = round(time.time() - self._epoch_start, 3)
        if self._row_val is not None:
            row["val_accuracy"] = self._row_val
        self.rows.append(row)
        write_metrics(self.rows, Path(self.output_dir) / "metrics.csv")
        checkpoints.save_state(self, Path(self.output_dir) / checkpoints.STATE_FILE)

    def after_train(self):
        # Two lines, because the tools that read logs wait for either the one or the other.
        print("Finish training")
        print("Finished training")
        metrics = seconds = None
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            metrics, seconds = self._test_for_results()
        print(f"Elapsed: {timedelta(seconds=round(time.time() - self.time_start))}")
        self._write_results("train", metrics, seconds)
        self.close_writer()

    # ---- test

    def evaluate(self, directory, epoch=None):
        """Load a trained model (see `load_model`), test it, and write `results.json`: what --eval-only does."""
        if (Path(self.output_dir) / checkpoints.STATE_FILE).is_file():
            raise UserError(
                f'"{self.output_dir}" holds a training run, whose results would be overwritten: '
                "choose another --output-dir"
            )
        if not directory and self._models:
            raise UserError(
                f"nothing to test: {self.cfg.TRAINER.NAME} is trained first. Give --model-dir, the output folder of a "
                "trained run"
            )
        if directory and epoch is None:
            # Methods with a load_model of their own look for nothing but the best model then.
            epoch = _last_epoch(directory, self.get_model_names())
        try:
            loaded = self.load_model(directory, epoch=epoch)
        except FileNotFoundError as error:
            raise MissingFile(str(error)) from error
        self._write_config()
        metrics, seconds = self._test_for_results()
        model_dir = str(directory) if directory else None
        self._write_results("eval", metrics, seconds, model_dir=model_dir, load_epoch=loaded or epoch)

    def _test_for_results(self):
        start = time.time()
        self.test()
        return self.evaluator.summary(), time.time() - start

    def _write_results(self, task, metrics, test_seconds, **source):
        results = collect_results(self, task, metrics, test_seconds, **source)
        write_json(results, Path(self.output_dir) / "results.json")

    @torch.no_grad()
    def test(self, split=None):
        """Measure the model on a split ("test", or "val" if there is one; None: TEST.SPLIT).

        Returns:
            float: the evaluator's first result (accuracy, percent).
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is not None:
            loader = self.val_loader
        else:
            split, loader = "test", self.test_loader
        print(f"Evaluate on the *{split}* set")
        for batch in tqdm(loader, desc=split, unit="batch", leave=False, disable=None):
            images, labels = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(images), labels)
        results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        return next(iter(results.values()))

    def model_inference(self, input):
        """Logits (B, C) of images (B, 3, H, W)."""
        return self.model(input)

    def parse_batch_test(self, batch):
        """Images and labels of a test batch, on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)


class TrainerX(SimpleTrainer):
    """A trainer whose epoch is one pass over the labelled training images."""

    def run_epoch(self):
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = len(self.train_loader_x)
        frequency = self.cfg.TRAIN.PRINT_FREQ
        end = time.time()
        for batch_idx, batch in enumerate(self.train_loader_x):
            self.batch_idx = batch_idx
            data_time.update(time.time() - end)
            losses.update(self.forward_backward(batch))
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
            end = time.time()
        self.epoch_summary = {name: meter.avg for name, meter in losses.meters.items()}

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


def _check_values(cfg):
    for key, value, choices in (
        ("TEST.FINAL_MODEL", cfg.TEST.FINAL_MODEL, ("last_step", "best_val")),
        ("TEST.SPLIT", cfg.TEST.SPLIT, ("test", "val")),
        ("TEST.BAD_IMAGES", cfg.TEST.BAD_IMAGES, ("error", "wrong")),
    ):
        if value not in choices:
            raise UserError(f'{key} "{value}": expected one of {", ".join(choices)}')
    for key, value, least in (
        ("TRAIN.PRINT_FREQ", cfg.TRAIN.PRINT_FREQ, 1),
        ("DATALOADER.TRAIN_X.BATCH_SIZE", cfg.DATALOADER.TRAIN_X.BATCH_SIZE, 1),
        ("DATALOADER.TEST.BATCH_SIZE", cfg.DATALOADER.TEST.BATCH_SIZE, 1),
        ("DATALOADER.NUM_WORKERS", cfg.DATALOADER.NUM_WORKERS, 0),
        ("DATALOADER.KEEP_GIB", cfg.DATALOADER.KEEP_GIB, 0),
        ("DATALOADER.FEATURES_GIB", cfg.DATALOADER.FEATURES_GIB, 0),
        ("INPUT.VIEWS", cfg.INPUT.VIEWS, 0),
        ("OPTIM.MAX_EPOCH", cfg.OPTIM.MAX_EPOCH, 0),
        ("OPTIM.LR", cfg.OPTIM.LR, 0),
        ("OPTIM.WEIGHT_DECAY", cfg.OPTIM.WEIGHT_DECAY, 0),
    ):
        if not value >= least:
            raise UserError(f"{key}: expected at least {least}, found {value}")


def _last_epoch(directory, names):
    """The epoch (from 1) of the last checkpoint of the models `names`; None: there is a best one, or none."""
    for name in names:
        try:
            number = checkpoints.find_checkpoint(directory, name).name.rpartition("-")[2]
        except MissingFile:
            return None
        if number.isdigit():
            return int(number)
    return None


def _with_seed(cfg):
    """The configuration itself if it has a seed; otherwise a copy with one that is drawn, printed and set."""
    if cfg.SEED >= 0:
        return cfg
    seed = random.SystemRandom().randrange(2**31)
    print(f"SEED is negative: drew {seed}")
    set_random_seed(seed)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SEED = seed
    cfg.freeze()
    return cfg
