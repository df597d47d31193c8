"""Training images, decoded once and kept in memory."""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image

from basics import UserError, show_progress
from dassl.utils import MAX_MEGAPIXELS, in_threads, read_image

CHUNK_BYTES = 64 * 2**20  # few large tensors, because with spawned workers each is a file descriptor


class ImageCache:
    """The pixels of images, by path.

    Workers that are forked or spawned after :meth:`fill` share the memory instead of copying it.

    Args:
        paths: of the images.
        budget: bytes of pixels (3 per pixel) to keep at most; images beyond it are read from their files every time.
        max_megapixels: the largest image that is read.
    """

    def __init__(self, paths: Iterable[str], budget: float, max_megapixels: float = MAX_MEGAPIXELS):
        self.paths = list(dict.fromkeys(paths))
        self.budget = budget
        self.max_megapixels = max_megapixels
        self._chunks: list[torch.Tensor] = []  # uint8, the pixels of several images each
        self._places: dict[str, tuple[int, int, tuple[int, ...]]] = {}  # chunk, start, (height, width, 3)
        self._filled = False

    def fill(self) -> None:
        """Decode all images, and keep those that fit. The second call does nothing.

        Raises:
            UserError: images cannot be read; lists them all.
        """
        if self._filled:
            return
        self._chunks.clear()
        bad: list[str] = []
        pending: list[np.ndarray] = []
        left, start = self.budget, 0
        decoded = zip(self.paths, in_threads(self._decode, self.paths), strict=True)
        for path, pixels in show_progress(decoded, "training images", len(self.paths), "image"):
            if isinstance(pixels, UserError):
                bad.append(str(pixels))
            elif pixels.size <= left:
                self._places[path] = len(self._chunks), start, pixels.shape
                pending.append(pixels.reshape(-1))
                left, start = left - pixels.size, start + pixels.size
                if start >= CHUNK_BYTES:
                    self._close_chunk(pending)
                    start = 0
        self._close_chunk(pending)
        if bad:
            title = f"{len(bad):,} of {len(self.paths):,} training images are unreadable:"
            raise UserError("\n  ".join([title, *bad, "Replace them, or leave them out."]))
        self._filled = True

    def _close_chunk(self, pending: list[np.ndarray]) -> None:
        if pending:
            self._chunks.append(torch.from_numpy(np.concatenate(pending)))
            pending.clear()

    def read(self, path: str) -> Image.Image:
        """Return an image in RGB, from memory if it is kept, else as :func:`dassl.utils.read_image` reads it."""
        if path not in self._places:
            return read_image(path, self.max_megapixels)
        chunk, start, shape = self._places[path]
        pixels = self._chunks[chunk].numpy()[start : start + int(np.prod(shape))]
        return Image.fromarray(pixels.reshape(shape))

    def _decode(self, path: str) -> np.ndarray | UserError:
        """Return pixels (height, width, 3) uint8, or the reason why there are none."""
        try:
            return np.asarray(read_image(path, self.max_megapixels))
        except UserError as error:
            return error
