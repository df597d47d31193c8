"""The progress bar. A module of its own, because importing tqdm takes time."""

from tqdm import tqdm


class Bar(tqdm):
    """A tqdm bar that nothing draws before its delay, not even a message above it."""

    monitor_interval = 0  # no thread of its own
    delay: float  # seconds after `start_t`

    def display(self, msg=None, pos=None):
        if self.delay and self._time() < self.start_t + self.delay:
            return False
        self.delay = 0  # it was drawn, so it is also erased
        return super().display(msg, pos)
