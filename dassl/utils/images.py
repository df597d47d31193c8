"""Image files: every readable kind is converted to RGB, and everything else is refused by name."""

import numpy as np
from PIL import Image

from basics.errors import BadImage, MissingFile, UserError

MAX_MEGAPIXELS = 90.0  # as large as Pillow reads without a warning
# Pillow warns above its limit, and refuses twice as many pixels; `read_image` has a limit of its own.
Image.MAX_IMAGE_PIXELS = None
GRAY_16 = 2**16 - 1  # the largest value of a 16-bit pixel


def read_image(path, max_megapixels=MAX_MEGAPIXELS, formats=None, name=None):
    """Read an image file, or an open binary file, as a PIL image in RGB.

    The content counts, not the ending of the name. As with `convert("RGB")` in the CoOp family's code, CMYK and
    palettes are converted, transparency is dropped, an animation gives its first frame, and a rotation stored in
    EXIF is not applied. Unlike there, 16 bits of gray keep their upper 8, as 16 bits of color do (Pillow's conversion
    turns all but the darkest white). Gray in other ranges (floating point) is refused, because its white is unknown.

    Args:
        formats: Pillow's names of the formats that are read; None for all.
        name: of the image in messages; None for its path.

    Raises:
        MissingFile: no such file.
        BadImage: not an image, a damaged one, or one with more than `max_megapixels` million pixels, which is refused
            before it is decoded.
        UserError: the file cannot be opened (permission, a failing disk).
    """
    name = path if name is None else name
    try:
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > max_megapixels * 1e6:
                raise BadImage(
                    f"{name}: expected at most {max_megapixels:g} million pixels (INPUT.MAX_MEGAPIXELS), got "
                    f"{image.width} x {image.height}. Shrink the image, or raise the limit."
                )
            return _to_rgb(image)
    except BadImage:
        raise
    except FileNotFoundError as error:
        raise MissingFile(f"{name}: expected an image file, got nothing.") from error
    except Exception as error:  # for damaged files, Pillow's decoders raise almost anything
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{name}: cannot open the file: {error.strerror}.") from error
        reason = str(error).replace(repr(path), repr(str(name))) or type(error).__name__  # not a file object's address
        raise BadImage(f"{name}: expected an image, got an unreadable file ({reason}).") from error


def _to_rgb(image):
    if image.mode.startswith(("I", "F")):
        gray = np.asarray(image)
        if image.mode == "F" or gray.min() < 0 or gray.max() > GRAY_16:
            raise ValueError(f"gray values ({image.mode}) outside 0 to {GRAY_16}; save it with 8 or 16 bits")
        return Image.fromarray((gray >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colors; Pillow warns when converting directly
    return image.convert("RGB")
