"""A run, from its configuration to its results."""

import random
import time
from datetime import timedelta
from pathlib import Path

import torch
from tqdm import tqdm

from basics import MissingFile, StopSignals, UserError, mkdir_if_missing, write_atomic, write_json
from dassl.data import DataManager
from dassl.engine import checkpoints
from dassl.engine.base import TrainerBase
from dassl.engine.checks import check_method, check_values
from dassl.engine.nonfinite import LossWatch, allowed_steps
from dassl.engine.progress import EpochProgress
from dassl.engine.results import collect_results, write_metrics, write_predictions
from dassl.engine.run_folder import FolderTaken
from dassl.evaluation import build_evaluator
from dassl.utils import set_random_seed


class SimpleTrainer(TrainerBase):
    """A run: configuration, data, model, training with checkpoints, test, results.

    Attributes that methods use: cfg, device, dm, train_loader_x, train_loader_u, val_loader, test_loader, num_classes,
    lab2cname, epoch (from 0), max_epoch, output_dir; after `build_model` also evaluator and best_result.
    A method may set `weights_sha256`, the digest of its frozen weights; it is noted in the results.
    """

    def __init__(self, cfg):
        super().__init__()
        if problems := check_values(cfg) + check_method(cfg, self):
            raise UserError("\n".join(problems))
        self.cfg = _with_seed(cfg)
        self.device = device_of(cfg)
        self.start_epoch = 0
        self.watch = LossWatch(allowed_steps(cfg.TRAIN.ON_NONFINITE))
        self.signals = StopSignals()
        self.progress = EpochProgress()
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.rows = []  # of metrics.csv
        self.tested = []  # paths of the last test's images
        self.epoch_summary = {}
        self.best_val = None  # the evaluator's summary on the validation set, of the best epoch

        self.build_data_loader()
        if cfg.TEST.FINAL_MODEL == "best_val" and self.val_loader is None:
            raise UserError(f"TEST.FINAL_MODEL best_val: the data set {cfg.DATASET.NAME} has no validation set")
        self.build_model()
        self.evaluator = build_evaluator(self.cfg, lab2cname=self.lab2cname)
        self.best_result = float("-inf")

    def check_cfg(self, cfg):
        """Refuse a configuration, by a UserError with a line for each mistake (or an assertion).

        Called before anything else, not even `self.cfg` is there; perhaps more than once, so it changes nothing.
        """

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

    def auto_settings(self):
        """What settings on "auto" came to on this machine (a dict of numbers), so that a run that goes on keeps it."""
        return {}

    def keep_auto_settings(self, auto_settings):
        """Take over what `auto_settings` told in the run that this one goes on from."""

    def train(self):
        """Train, test, and write `results.json`. A run that was stopped goes on from its last saved state.

        Raises:
            Stopped: Ctrl-C or SIGTERM came; the state was saved after the step that was under way.
        """
        with StopSignals() as self.signals:
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
        folder = self._resume_from()
        self.start_epoch = self.resume_model_if_exist(folder)
        self._write_config()
        if self.rows:
            write_metrics(self.rows, Path(self.output_dir) / "metrics.csv")
        if folder != self.output_dir:
            checkpoints.bring_best(folder, self.output_dir, self.get_model_names())
        if self.cfg.TRAIN.TENSORBOARD:
            self.init_writer(Path(self.output_dir) / "tensorboard")
        self.time_start = self._saved_at = time.time()

    def _resume_from(self):
        cfg, own_state = self.cfg, Path(self.output_dir) / checkpoints.STATE_FILE
        if own_state.is_file():
            if not cfg.TRAIN.RESUME:
                raise FolderTaken(
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
        self._row_val = None
        if not self.progress.batches:
            self.progress = EpochProgress(self.get_current_lr())
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
        row = {"epoch": self.epoch + 1, **self.epoch_summary, "lr": self.progress.lr}
        row["seconds"] = round(self.progress.seconds, 3)
        if self._row_val is not None:
            row["val_accuracy"] = self._row_val
        self.rows.append(row)
        self.progress = EpochProgress()
        write_metrics(self.rows, Path(self.output_dir) / "metrics.csv")
        self._save_state()
        self.signals.stop_if_asked(f"after epoch {self.epoch + 1}")

    def _save_state(self):
        self.watch.settle()  # never the state behind a bad loss
        checkpoints.save_state(self, Path(self.output_dir) / checkpoints.STATE_FILE)
        self._saved_at = time.time()

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
            raise FolderTaken(
                f'"{self.output_dir}" holds a training run, whose results would be overwritten: '
                "choose another --output-dir"
            )
        epoch = self.load_for_test(directory, epoch)
        self._write_config()
        metrics, seconds = self._test_for_results()
        model_dir = str(directory) if directory else None
        self._write_results("eval", metrics, seconds, model_dir=model_dir, load_epoch=epoch)

    def load_for_test(self, directory, epoch=None):
        """Load a trained model (see `load_model`); return its epoch, None if the method trains nothing.

        Raises:
            UserError: there is no such model, or none was named.
        """
        if not directory and self._models:
            raise UserError(
                f"nothing to test: {self.cfg.TRAINER.NAME} is trained first. Give --model-dir, the output folder of a "
                "trained run"
            )
        if directory and epoch is None:
            # Methods with a load_model of their own look for nothing but the best model then.
            epoch = _last_epoch(directory, self.get_model_names())
        try:
            return self.load_model(directory, epoch=epoch) or epoch
        except FileNotFoundError as error:
            raise MissingFile(str(error)) from error

    def _test_for_results(self):
        start = time.time()
        self.test()
        seconds, answers = time.time() - start, self.evaluator.predictions()
        if answers and len(answers) == len(self.tested):  # not if a method tests in its own way, or on bare tensors
            folder = getattr(self.dm.dataset, "dataset_dir", "")
            write_predictions(answers, self.tested, folder, Path(self.output_dir) / "predictions.csv")
        return self.evaluator.summary(), seconds

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
        self.tested = []
        final = split is None  # otherwise a measurement in training: it is short, and the epoch is finished first
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is not None:
            loader = self.val_loader
        else:
            split, loader = "test", self.test_loader
        print(f"Evaluate on the *{split}* set")
        for batch in tqdm(loader, desc=split, unit="batch", leave=False, disable=None):
            images, labels = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(images), labels)
            self.tested += batch.get("impath", [])
            if final:
                self.signals.stop_if_asked("in the test after the training")
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


def device_of(cfg):
    """The device of a run: the GPU if there is one and USE_CUDA, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")


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
