"""The loader: torch's, with what goes wrong said in one line."""

import time
from collections.abc import Iterator

from torch.utils.data import DataLoader

from dassl.data.pictures import PictureStore
from dassl.utils import UserError

DEAD_WORKER = "DataLoader worker"  # how torch's message begins
SIGNAL_SECONDS = 1.0


class Loader(DataLoader):
    """A torch DataLoader.

    Args:
        pictures: filled before the first batch, and before any worker starts, so that the workers share them.
        **options: torch's.
    """

    def __init__(self, *, pictures: PictureStore | None = None, **options):
        super().__init__(**options)
        self.pictures = pictures

    def __iter__(self) -> Iterator[dict]:
        """The batches of one pass.

        Raises:
            UserError: an image cannot be read (names it), or a worker died (says of what).
        """
        if self.pictures is not None:
            self.pictures.fill()
        try:
            yield from super().__iter__()
        except (RuntimeError, ConnectionError, EOFError) as error:
            raise dead_worker(error) or error from error


def dead_worker(error: Exception) -> UserError | None:
    """What to tell the user if `error` is the sign of a worker process that is gone; None if it is another one.

    torch raises it in the main process where that happens to be, in the loader or in the midst of a training step.
    """
    if str(error).startswith("Caught "):
        return None  # what a worker raised itself
    if isinstance(error, ConnectionError | EOFError):
        error = _wait_for_signal() or error
    elif DEAD_WORKER not in str(error):
        return None
    exact = error.__context__ if "signal" in str(error.__context__) else error
    return UserError(
        f"a worker process that loads images is gone: {str(exact).strip()}\n"
        "Most often memory ran out (Killed) or shared memory did (Bus error): take fewer workers by "
        "DATALOADER.NUM_WORKERS; 0 reads the images in the main process and shows what fails there"
    )


def _wait_for_signal() -> RuntimeError | None:
    """A worker's end may show first as a broken connection; torch's word for it comes with the child's signal."""
    try:
        time.sleep(SIGNAL_SECONDS)
    except RuntimeError as error:
        return error
    return None
