"""How far an epoch has come."""

import time

from dassl.utils import MetricMeter


class EpochProgress:
    """What an epoch's row in metrics.csv is made of, and what going on in its middle needs.

    Attributes:
        batches: steps that are done.
        losses: what they reported.
        lr: the learning rate with which the epoch began.
        random: the global random streams (`get_random_state`) when the epoch's first batch was asked for.
    """

    def __init__(self, lr=None):
        self.batches = 0
        self.losses = MetricMeter()
        self.lr = lr
        self.random = None
        self._began = time.time()

    @property
    def seconds(self):
        """Time spent, that before a stop included, but not what was lost by it."""
        return time.time() - self._began

    def state_dict(self):
        """All of it, in tensors and plain numbers."""
        return {
            "batches": self.batches,
            "losses": self.losses.state_dict(),
            "lr": self.lr,
            "random": self.random,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state):
        """Go on from what `state_dict` returned."""
        self.batches, self.lr, self.random = state["batches"], state["lr"], state["random"]
        self.losses.load_state_dict(state["losses"])
        self._began = time.time() - state["seconds"]
