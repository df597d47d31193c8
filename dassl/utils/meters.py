"""Running means of the numbers that a training step reports."""

from collections import defaultdict

import torch


class AverageMeter:
    """The last value (`val`) and the mean (`avg`) of a series of values.

    It is lazy: tensors are read only when a number is requested, so that a step on the GPU does not wait for its loss.

    Args:
        ema (bool): use an exponential moving average (0.9 old + 0.1 new) as the mean.
    """

    def __init__(self, ema=False):
        self.ema = ema
        self.reset()

    def reset(self):
        self._pending: list[tuple] = []
        self._val = self._avg = self._sum = 0.0
        self._count = 0

    def update(self, val, n=1):
        """Add `val` (a number or a one-element tensor), which counts as `n` values."""
        self._pending.append((val.detach() if isinstance(val, torch.Tensor) else val, n))

    def _settle(self):
        pending, self._pending = self._pending, []
        for value, n in pending:
            self._val = float(value)
            self._sum += self._val * n
            self._count += n
            if self.ema:
                self._avg = 0.9 * self._avg + 0.1 * self._val
            else:
                self._avg = self._sum / self._count

    def state_dict(self):
        """Return the state as plain numbers."""
        self._settle()
        return {"val": self._val, "avg": self._avg, "sum": self._sum, "count": self._count}

    def load_state_dict(self, state):
        """Continue from what `state_dict` returned."""
        self._pending = []
        self._val, self._avg, self._sum, self._count = (state[key] for key in ("val", "avg", "sum", "count"))

    @property
    def val(self):
        self._settle()
        return self._val

    @property
    def avg(self):
        self._settle()
        return self._avg

    @property
    def sum(self):
        self._settle()
        return self._sum

    @property
    def count(self):
        self._settle()
        return self._count


class MetricMeter:
    """One `AverageMeter` per name, in `meters`; as a string, `loss 2.1083 (2.1083) acc 25.0000 (25.0000)`."""

    def __init__(self, delimiter=" "):
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict):
        """Add a dict of name -> number or one-element tensor; None adds nothing.

        Raises:
            TypeError: neither a dict nor None.
        """
        if input_dict is None:
            return
        if not isinstance(input_dict, dict):
            raise TypeError(f"expected a dict of numbers, got {type(input_dict).__name__}")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def state_dict(self):
        """Return the meters' states by name."""
        return {name: meter.state_dict() for name, meter in self.meters.items()}

    def load_state_dict(self, states):
        """Continue from what `state_dict` returned."""
        for name, state in states.items():
            self.meters[name].load_state_dict(state)

    def __str__(self):
        return self.delimiter.join(f"{name} {m.val:.4f} ({m.avg:.4f})" for name, m in self.meters.items())
