"""The loader: torch's, with what the engine needs around it."""

import multiprocessing
import signal
import time
from collections.abc import Iterator
from multiprocessing.util import Finalize

from torch.utils.data import DataLoader

from dassl.data.image_cache import ImageCache

SIGNAL_SECONDS = 1.0  # in which the system tells of a child that is gone


def _end_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report them
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


# At its end a process asks its workers to end by SIGTERM, which ours leave to it (`leave_signals_to_parent`), and waits
# for them: those of a loader that is still there would never go. This comes before.
Finalize(None, _end_workers, exitpriority=0)


class Loader(DataLoader):
    """A torch DataLoader.

    Args:
        image_cache: filled before the first batch, and before any worker starts, so that the workers share them.
        **options: torch's.
    """

    def __init__(self, *, image_cache: ImageCache | None = None, **options):
        super().__init__(**options)
        self.image_cache = image_cache

    def __iter__(self) -> Iterator[dict]:
        """The batches of one pass.

        Raises:
            UserError: an image cannot be read.
            RuntimeError: a worker is gone; in torch's words, with its process and the signal that ended it.
        """
        if self.image_cache is not None:
            self.image_cache.fill()
        try:
            yield from super().__iter__()
        except (ConnectionError, EOFError) as error:
            # A worker's end may show first as a broken connection. torch tells of the cause in the handler of the
            # signal that comes with it, which is run while this waits.
            if not str(error).startswith("Caught "):  # which is how torch tells of an error in a worker
                time.sleep(SIGNAL_SECONDS)
            raise
