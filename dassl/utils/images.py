"""Image files: every readable kind to RGB, everything else refused by its name."""

import numpy as np
from PIL import Image

from basics.errors import BadImage, MissingFile, UserError

GREY_16 = 2**16 - 1  # the largest value of a 16-bit pixel


def read_image(path):
    """Read an image file as a PIL image in RGB.

    The content counts, not the ending of the name. As `convert("RGB")` in the CoOp family's code: CMYK and palettes are
    converted, transparency is dropped, an animation gives its first frame, and a rotation noted in EXIF is not applied.
    Unlike there, 16 bits of grey keep their upper 8, as 16 bits of colour do (Pillow's conversion makes all but the
    darkest white). Grey in other ranges (floating point) is refused: nothing says what is white.

    Raises:
        MissingFile: no such file.
        BadImage: not an image, a damaged one, or one of more pixels than Pillow's limit against decompression bombs.
        UserError: the file cannot be opened (permission, a failing disk).
    """
    try:
        with Image.open(path) as image:
            return _to_rgb(image)
    except FileNotFoundError as error:
        raise MissingFile(f'no image file at "{path}"') from error
    except Exception as error:  # for a damaged file Pillow's decoders raise almost anything
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f'cannot open "{path}": {error.strerror}') from error
        raise BadImage(f'cannot read "{path}" as an image: {error or type(error).__name__}') from error


def _to_rgb(image):
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image)
        if image.mode == "F" or grey.min() < 0 or grey.max() > GREY_16:
            raise ValueError(f"its grey values ({image.mode}) are not 0 to {GREY_16}; save it with 8 or 16 bits")
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; straight to RGB, Pillow warns
    return image.convert("RGB")
