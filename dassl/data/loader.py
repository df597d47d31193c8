"""torch's DataLoader, with the additions that the engine needs."""

import multiprocessing
import signal
import time
from collections.abc import Iterator
from multiprocessing.util import Finalize

from torch.utils.data import BatchSampler, DataLoader

from dassl.data.image_cache import ImageCache

SIGNAL_SECONDS = 1.0  # within which the system reports the end of a child process
END_SECONDS = 5.0  # in which a worker with a broken connection has ended, on a busy machine


def _end_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report them
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


# On exit, a process sends SIGTERM to its workers, which ours ignore (`leave_signals_to_parent`), and waits for them.
# The workers of a loader that still exists would never end, so they are killed first.
Finalize(None, _end_workers, exitpriority=0)


class Loader(DataLoader):
    """A torch DataLoader.

    Args:
        image_cache: filled before the first batch and before any worker starts, so that the workers share it.
        batches: the kind of batches; None: torch's. Its batches hold what `sampler` yields.
        **options: torch's.
    """

    def __init__(self, *, image_cache: ImageCache | None = None, batches: type[BatchSampler] | None = None, **options):
        sampler = options.get("sampler")
        if batches is not None:
            own = {name: options.pop(name) for name in ("sampler", "batch_size", "drop_last")}
            options["batch_sampler"] = batches(**own)
        super().__init__(**options)
        if batches is not None:
            self.__dict__["sampler"] = sampler  # torch sets another one next to a batch sampler
        # A worker without a batch takes time to start and does nothing; if the garbage collector ends it, its pipe is
        # even closed twice.
        self.num_workers = min(self.num_workers, len(self))
        self.image_cache = image_cache

    def __iter__(self) -> Iterator[dict]:  # type: ignore[override]  # torch promises an iterator of its own class
        """Yield the batches of one pass.

        Raises:
            UserError: an image cannot be read.
            RuntimeError: a worker died; in torch's words, with its process and the signal that ended it.
        """
        if self.image_cache is not None:
            self.image_cache.fill()
        batches = super().__iter__()
        try:
            yield from batches
        except (ConnectionError, EOFError) as error:
            # A worker's end may show first as a broken connection. torch reports the cause in the handler of the
            # signal that follows, which runs during this wait; an error raised in a handler can get lost, though.
            if not str(error).startswith("Caught "):  # the start of torch's report of an error inside a worker
                time.sleep(SIGNAL_SECONDS)
                for worker in getattr(batches, "_workers", ()):
                    worker.join(END_SECONDS)
                    if worker.exitcode:
                        raise RuntimeError(f"DataLoader worker (pid {worker.pid}) {_end(worker.exitcode)}") from error
            raise


def _end(exitcode: int) -> str:
    """Describe how a process ended, in torch's words."""
    if exitcode < 0:
        return f"is killed by signal: {signal.strsignal(-exitcode)}."
    return f"exited unexpectedly with exit code {exitcode}."
