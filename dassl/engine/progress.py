"""What a training shows while it runs: one bar on a terminal. `RunRecord` keeps the numbers."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from basics import can_redraw, show_progress

REFRESH = 0.2  # seconds; a look at the losses waits for the GPU
FORMAT = "{desc} {percentage:3.0f}% |{bar}| {remaining} left{postfix}"
SHOWN = {"loss": "6.4f", "acc": "5.1f"}  # of what the steps report, in a width that does not change


class TrainingBar:
    """The epoch, the epoch's mean loss and accuracy, the learning rate, and the time left.

    Attributes:
        replaces_lines: whether the terminal needs no lines besides the open bar.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._next = 0.0
        self.replaces_lines = False

    @contextmanager
    def open(self, trainer) -> Iterator[None]:
        """Show the bar of a training that has complete epochs; nothing if all are complete."""
        self._steps = max(len(trainer.train_loader_x or ()), 1)
        done, total = trainer.start_epoch * self._steps, trainer.max_epoch * self._steps
        options = {"initial": done, "bar_format": FORMAT, "leave": True}
        with show_progress(total=total, delay=0, disable=done == total, **options) as self._bar:
            self.replaces_lines = not self._bar.disable and can_redraw(sys.stdout)
            try:
                yield
            finally:
                self.replaces_lines = False
        self._bar = None

    def show(self, trainer, steps: int | None = None) -> None:
        """Show the state of a trainer after `steps` of the current epoch; None: after all."""
        if self._bar is None or self._bar.disable or (steps is not None and time.monotonic() < self._next):
            return
        self._next = time.monotonic() + REFRESH
        means, lr = trainer.record.progress.means(), trainer.get_current_lr()
        figures = [f"{name} {means[name]:{form}}" for name, form in SHOWN.items() if name in means]
        figures += [f"lr {lr:.1e}"] if lr is not None else []
        self._bar.set_description_str(f"epoch {trainer.epoch + 1}/{trainer.max_epoch}", refresh=False)
        self._bar.set_postfix_str(", ".join(figures), refresh=False)
        self._bar.n = trainer.epoch * self._steps + (self._steps if steps is None else min(steps, self._steps))
        self._bar.refresh()
