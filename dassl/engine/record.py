"""What a run writes into its folder: `config.yaml`, `model.json`, `state.pt`, `metrics.csv`, `results.json`,
`predictions.csv`.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from basics import UserError, log, mkdir_if_missing, notify, write_atomic, write_json
from dassl.engine import checkpoints, results, state
from dassl.engine.run_folder import FolderTaken
from dassl.engine.state import STATE_FILE
from dassl.utils import MetricMeter, get_random_state, set_random_state


class EpochProgress:
    """The progress of an epoch: its row of metrics.csv, and what resuming in its middle needs.

    Attributes:
        batches: steps done.
        losses: what they reported.
        lr: the learning rate at the start of the epoch.
        random: the global random streams (`get_random_state`) when the first batch was requested.
    """

    def __init__(self, lr=None):
        self.batches = 0
        self.losses = MetricMeter()
        self.lr = lr
        self.random = None
        self._started = time.monotonic()

    def add_step(self, reported) -> None:
        """Count a step and what it reported (a dict); None for a skipped step."""
        self.losses.update(reported)
        self.batches += 1

    def means(self) -> dict[str, float]:
        return {name: meter.avg for name, meter in self.losses.meters.items()}

    @property
    def seconds(self) -> float:
        """Time spent, including the time before a stop, but not the work that the stop lost."""
        return time.monotonic() - self._started

    def state_dict(self) -> dict:
        """Return everything as tensors and plain numbers."""
        return {
            "batches": self.batches,
            "losses": self.losses.state_dict(),
            "lr": self.lr,
            "random": self.random,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from what `state_dict` returned."""
        self.batches, self.lr, self.random = state["batches"], state["lr"], state["random"]
        self.losses.load_state_dict(state["losses"])
        self._started = time.monotonic() - state["seconds"]


class RunRecord:
    """The record of a trainer's run.

    Attributes:
        rows: the rows of metrics.csv (dicts), one per complete epoch.
        progress: the current epoch's.
        val_accuracy: measured after the current epoch; None if it was not.
        best_val: the evaluator's summary on the validation images after the best epoch; None without one.
        changes: what differed when the run was resumed, such as "torch: 2.9.1 before, 2.14.1 now".
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.folder = Path(trainer.output_dir)
        self.rows: list[dict] = []
        self.progress = EpochProgress()
        self.val_accuracy: float | None = None
        self.best_val: dict | None = None
        self.changes: list[str] = []
        self._saved_at = time.monotonic()

    # ---- start

    def folder_to_resume(self) -> str:
        """Return the folder of the run that this one continues: its own, unless it is empty and RESUME names another.

        Raises:
            FolderTaken: the folder holds a run, and TRAIN.RESUME is False.
            UserError: RESUME names a folder without a run.
        """
        cfg = self.trainer.cfg
        if (self.folder / STATE_FILE).is_file():
            if not cfg.TRAIN.RESUME:
                raise FolderTaken(
                    f"{self.folder}: expected a folder without a run, because TRAIN.RESUME is False, got one "
                    "with a run. Choose another --output-dir, or delete the folder."
                )
            return str(self.folder)
        if cfg.RESUME and not (Path(cfg.RESUME) / STATE_FILE).is_file():
            raise UserError(
                f"RESUME: expected a folder that contains {STATE_FILE}, got {cfg.RESUME}, which does not. "
                "Give the folder of an unfinished run."
            )
        return cfg.RESUME or str(self.folder)

    def restore(self, folder) -> int:
        """Restore the state in `folder`, if there is one, and return the number of complete epochs."""
        path = Path(folder) / STATE_FILE
        if not path.is_file():
            log("No checkpoint found, train from scratch")
            return 0
        epochs = state.restore_state(self.trainer, path)
        batches = f" and {self.progress.batches} batches" if self.progress.batches else ""
        notify(f'Resumed from "{path}": {epochs} epochs{batches} are done')
        return epochs

    def start(self, resumed_from) -> None:
        """Write what the folder has to hold before the first epoch, with the results so far of a resumed run."""
        self.write_config()
        description = self.trainer.describe_model()
        if description is not None:
            write_json(description, self.folder / "model.json")
        if self.rows:
            results.write_metrics(self.rows, self.folder / "metrics.csv")
        if Path(resumed_from) != self.folder:
            checkpoints.copy_best(resumed_from, self.folder, self.trainer.get_model_names())
        self._saved_at = time.monotonic()

    def write_config(self) -> None:
        mkdir_if_missing(self.folder)
        write_atomic(self.folder / "config.yaml", self.trainer.cfg.dump().encode())

    # ---- epochs

    def open_epoch(self) -> None:
        self.val_accuracy = None
        if not self.progress.batches:  # else it is resumed
            self.progress = EpochProgress(self.trainer.get_current_lr())

    def remaining_batches(self, loader) -> Iterator:
        """Return the epoch's batches; in a resumed epoch, those that are left."""
        done, now = self.progress.batches, get_random_state()
        if done:
            # A loader may sample the order, or noise, from the global streams: it is run again up to this point.
            set_random_state(self.progress.random)
        else:
            self.progress.random = now
        batches = iter(loader)
        for _ in range(done):
            next(batches)
        if done:
            set_random_state(now)
        return batches

    def log_step(self) -> None:
        """Write the running means and the learning rate to the tracker, if one is on."""
        trainer = self.trainer
        if trainer._writer is None:
            return
        step = trainer.epoch * trainer.num_batches + trainer.batch_idx
        for name, mean in self.progress.means().items():
            trainer.write_scalar(f"train/{name}", mean, step)
        if trainer.get_current_lr() is not None:
            trainer.write_scalar("train/lr", trainer.get_current_lr(), step)

    def save_if_due(self, stop: bool) -> None:
        """Save the state in the middle of an epoch: every TRAIN.CHECKPOINT_MINUTES, or before a `stop`."""
        minutes = self.trainer.cfg.TRAIN.CHECKPOINT_MINUTES
        if stop or (minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes):
            self._save_state()

    def stopped_early(self) -> bool:
        """Return whether TRAIN.PATIENCE epochs, the current one included, brought no better validation accuracy."""
        patience = self.trainer.cfg.TRAIN.PATIENCE
        accuracies = [row.get("val_accuracy") for row in self.rows]
        if self.trainer.epoch == len(self.rows) and self.val_accuracy is not None:
            accuracies.append(self.val_accuracy)
        known = [each for each in accuracies if each is not None]
        return patience > 0 and len(known) > patience and max(known[-patience:]) <= max(known[:-patience])

    def close_epoch(self) -> None:
        """Add the epoch's row to metrics.csv and save the state."""
        row = {"epoch": self.trainer.epoch + 1, **self.progress.means(), "lr": self.progress.lr}
        row["seconds"] = round(self.progress.seconds, 3)
        if self.trainer.cfg.TRAIN.PATIENCE and self.val_accuracy is None:
            raise UserError(
                f"TRAIN.PATIENCE: expected 0 with {self.trainer.cfg.TRAINER.NAME}, which does not validate after every "
                f"epoch as the engine does, got {self.trainer.cfg.TRAIN.PATIENCE}. Leave it out."
            )
        if self.val_accuracy is not None:
            row["val_accuracy"] = self.val_accuracy
        self.rows.append(row)
        self.progress = EpochProgress()
        results.write_metrics(self.rows, self.folder / "metrics.csv")
        self._save_state()

    def _save_state(self) -> None:
        self.trainer.watch.settle()  # the state after a bad loss is never saved
        state.save_state(self.trainer, self.folder / STATE_FILE)
        self._saved_at = time.monotonic()

    # ---- results

    def refuse_if_trained_here(self) -> None:
        """Raise FolderTaken if the folder holds a training run, whose results a test would overwrite."""
        if (self.folder / STATE_FILE).is_file():
            raise FolderTaken(
                f"{self.folder}: expected a folder without a training run, got one whose results would be "
                "overwritten. Choose another --output-dir."
            )

    def write_predictions(self, answers: list[dict] | None, impaths: list[str]) -> None:
        """Write predictions.csv, unless the method tests in its own way or on batches without paths."""
        if answers and len(answers) == len(impaths):
            dataset_dir = getattr(self.trainer.dm.dataset, "dataset_dir", "")
            results.write_predictions(answers, impaths, dataset_dir, self.folder / "predictions.csv")

    def write_results(self, task: str, metrics: dict | None, test_seconds: float | None, **source) -> None:
        write_json(
            results.collect_results(self.trainer, task, metrics, test_seconds, **source), self.folder / "results.json"
        )
