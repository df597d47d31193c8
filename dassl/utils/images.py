"""Image files: every readable kind is converted to RGB, and everything else is refused by name."""

import os
from functools import cache
from importlib.util import find_spec

import numpy as np
from PIL import Image, UnidentifiedImageError

from basics.errors import BadImage, MissingFile, explain_os_error

MAX_MEGAPIXELS = 90.0  # as large as Pillow reads without a warning
# Pillow warns above its limit, and refuses twice as many pixels; `read_image` has a limit of its own.
Image.MAX_IMAGE_PIXELS = None
GRAY_16 = 2**16 - 1  # the largest value of a 16-bit pixel
DEPTHS = (8, 10, 12, 14, 16)  # bits of the cameras and scanners that write 16-bit files
WHITE_IS_ZERO = 0  # value of TIFF's tag 262
# Formats that Pillow recognizes but cannot draw, or (EPS) hands to another program, which would execute the file.
NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
# Endings of images that need another package, and the extra that installs it.
EXTRA_ENDINGS = {".heic": "heif", ".heif": "heif", ".hif": "heif", ".dcm": "dicom", ".dicom": "dicom"}
PACKAGES = {"heif": "pillow_heif", "dicom": "pydicom"}
# Endings of images that have to be converted first: raw files of cameras, drawings.
CONVERT_ENDINGS = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".svg", ".pdf", ".eps", ".jxl")


def read_image(path, max_megapixels=MAX_MEGAPIXELS, formats=None, name=None):
    """Read an image file, or an open binary file, as a PIL image in RGB.

    The content counts, not the ending of the name. As with `convert("RGB")` in the CoOp family's code, CMYK and
    palettes are converted, transparency is dropped, an animation gives its first frame, and a rotation stored in
    EXIF is not applied. Unlike there, deep gray is scaled to 8 bits (:func:`to_eight_bits`); Pillow's conversion turns
    all but the darkest white.

    HEIC needs the package pillow-heif, DICOM needs pydicom.

    Args:
        formats: Pillow's names of the formats that are read; None for all but NOT_READ.
        name: of the image in messages; None for its path.

    Raises:
        MissingFile: no such file.
        BadImage: not an image, a damaged one, or one with more than `max_megapixels` million pixels, which is refused
            before it is decoded.
        UserError: the file cannot be opened (permission, a failing disk).
    """
    name = path if name is None else name
    try:
        try:
            image = Image.open(path, formats=formats or _formats())
        except UnidentifiedImageError as error:
            extra = _extra_for(path) if isinstance(path, str | os.PathLike) else ""
            if extra and not _installed(extra):
                raise ValueError(f"it needs a package: {_advice(extra)}") from error
            if extra != "dicom":
                raise
            return _read_dicom(path, max_megapixels)
        with image:
            _check_size(name, image.width, image.height, max_megapixels)
            return _to_rgb(image)
    except BadImage:
        raise
    except FileNotFoundError as error:
        raise MissingFile(f"{name}: expected an image file, got nothing. Check the path.") from error
    except Exception as error:  # for damaged files, Pillow's decoders raise almost anything
        if isinstance(error, OSError) and error.errno is not None:
            raise explain_os_error(name, "a readable file", error) from error
        reason = str(error).replace(repr(path), repr(str(name))) or type(error).__name__  # not a file object's address
        raise BadImage(f"{name}: expected an image, got an unreadable file ({reason}).") from error


def is_image(path) -> bool:
    """Return whether a file is an image: by the ending of its name, or, without a known ending, by its first bytes."""
    ending = os.path.splitext(path)[1].lower()
    if ending in EXTRA_ENDINGS:
        return _installed(EXTRA_ENDINGS[ending])
    if ending in image_endings():
        return True
    if ending in CONVERT_ENDINGS:
        return False
    try:
        with Image.open(path, formats=_formats()):
            return True
    except Exception:  # as in `read_image`
        return False


def why_not_read(endings) -> str:
    """Return what to do about files with these endings (".heic"): one sentence for each kind, or "" for other files."""
    endings = sorted({ending.lower() for ending in endings})
    advice = {ending: _advice(EXTRA_ENDINGS[ending]) for ending in endings if ending in EXTRA_ENDINGS}
    advice |= {ending: "convert them to JPEG or PNG" for ending in endings if ending in CONVERT_ENDINGS}
    return " ".join(f"To read {ending} files, {what}." for ending, what in advice.items())


@cache
def image_endings() -> frozenset[str]:
    """Return the endings of the files that Pillow reads here, such as ".jpg"."""
    formats = _formats()
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in formats)


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats to try, with those of pillow-heif if it is installed."""
    Image.init()
    if find_spec(PACKAGES["heif"]):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(kind for kind in Image.ID if kind in Image.OPEN and kind not in NOT_READ)


def _installed(extra: str) -> bool:
    return find_spec(PACKAGES[extra]) is not None


def _advice(extra: str) -> str:
    return f"pip install 'promptlearn-clip[{extra}]'"


def _extra_for(path) -> str:
    """Return the extra that reads a file which Pillow does not recognize, by its first bytes; "" if there is none."""
    with open(path, "rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return "dicom"
    return "heif" if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1") else ""


def _check_size(name, width: int, height: int, max_megapixels: float) -> None:
    if width * height > max_megapixels * 1e6:
        raise BadImage(
            f"{name}: expected at most {max_megapixels:g} million pixels (INPUT.MAX_MEGAPIXELS), got "
            f"{width} x {height}. Shrink the image, or raise the limit."
        )


def _to_rgb(image):
    if image.mode.startswith(("I", "F")):
        gray = to_eight_bits(np.asarray(image))
        if image.format == "TIFF" and image.tag_v2.get(262) == WHITE_IS_ZERO:
            gray = 255 - gray
        return Image.fromarray(gray).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colors; Pillow warns when converting directly
    # Of 16 bits a color, Pillow reads the upper 8.
    deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    image = image.convert("RGB")
    if deep:
        most = max(high for _, high in image.getextrema())
        stretch = next(16 - bits for bits in DEPTHS if most < 2 ** (bits - 8))
        return image.point(lambda value: min(value << stretch, 255)) if stretch else image
    return image


def to_eight_bits(gray):
    """Scale gray of any depth to the full range of 8 bits.

    Integers from 0 to 65535 keep the upper 8 of their bits. A 16-bit file may hold 8 to 14 bits without saying so:
    their number is the smallest in DEPTHS that holds the image's largest value. Floating point from 0 to 1 or from 0
    to 255 keeps that range. Of anything else (negative values, temperatures), the smallest value becomes black and the
    largest white; NaN is black.

    Args:
        gray (np.ndarray): (H, W), integers or floating point.

    Returns:
        np.ndarray: (H, W), uint8.
    """
    finite = gray[np.isfinite(gray)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    if gray.dtype.kind in "iu" and low >= 0 and high <= GRAY_16:
        bits = next(bits for bits in DEPTHS if high < 2**bits)
        return (gray >> (bits - 8)).astype(np.uint8)
    if gray.dtype.kind == "f" and low >= 0 and high <= 255:
        low, high = 0, 1 if high <= 1 else 255
    scaled = (gray.astype(np.float64) - low) / max(float(high) - float(low), np.finfo(np.float64).tiny) * 255
    return np.rint(np.nan_to_num(scaled, posinf=255, neginf=0).clip(0, 255)).astype(np.uint8)


def _read_dicom(path, max_megapixels: float):
    """Read the first frame of a DICOM file, through its own lookup tables."""
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

    header = dcmread(path, stop_before_pixels=True)
    _check_size(path, header.Columns, header.Rows, max_megapixels)
    pixels = pixel_array(path, index=0)
    if pixels.ndim == 3:
        return Image.fromarray(to_eight_bits(pixels))
    values = apply_voi_lut(apply_modality_lut(pixels, header), header)
    low, high = values.min(), values.max()
    gray = to_eight_bits((values - low) / max(float(high - low), np.finfo(np.float64).tiny))
    return Image.fromarray(255 - gray if header.PhotometricInterpretation == "MONOCHROME1" else gray).convert("RGB")
