"""What `PromptedClassifier` takes as pictures: files, folders, PIL images, arrays, and tensors, one or many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from basics import UserError
from dassl.data.datasets import list_files
from dassl.utils.images import why_not_read

Picture = str | Path | Image.Image | np.ndarray | Tensor
Source = Picture | Sequence[Picture] | Iterable[Picture]


def array_image(array: np.ndarray) -> Image.Image:
    """Convert a uint8 array (H, W, 3) or (H, W) to an RGB image.

    Raises:
        UserError: it has another shape or type.
    """
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3):
        raise UserError(
            f"images: expected uint8 arrays (height, width, 3) or (height, width), got {array.dtype} of shape "
            f"{array.shape}."
        )
    return Image.fromarray(array).convert("RGB")


def expand(images: Source) -> Iterator[Picture]:
    """List the single pictures in the input of `PromptedClassifier.predict`; folders become their files.

    Raises:
        UserError: a folder holds no picture.
    """
    is_one = isinstance(images, str | Path | Image.Image)
    if isinstance(images, np.ndarray | Tensor):
        is_one = images.ndim <= 3
    several: Iterable[Any] = [images] if is_one else images  # type: ignore[assignment]
    for image in several:
        if isinstance(image, str | Path) and Path(image).is_dir():
            files, others = list_files(image)
            if not files:
                advice = why_not_read(Path(path).suffix for path in others)
                raise UserError(f"{image}: expected pictures in this folder, got none. {advice}".rstrip())
            yield from files
        else:
            yield image
