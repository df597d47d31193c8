"""Every readable kind of image comes in RGB; everything else is refused by its name, with one line."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from basics import BadImage, MissingFile, UserError
from dassl.utils import images, is_image, read_image
from dassl.utils.images import why_not_read

COLORS = np.array([[[250, 10, 20], [0, 255, 128]], [[0, 0, 0], [255, 255, 255]], [[9, 90, 190], [60, 50, 40]]], "uint8")
GREY_16 = np.array([[0, 255], [256, 32768], [65280, 65535]], "uint16")


@pytest.fixture
def colors():
    return Image.fromarray(COLORS)


def png(width, height, bits, rows):
    """Return a color PNG of `rows`, each with its filter byte; Pillow writes 8 bits a color at most."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pixels(path):
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_gray_is_converted_to_rgb(tmp_path):
    Image.new("L", (3, 2), 7).save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png") == 7).all() and pixels(tmp_path / "a.png").shape == (2, 3, 3)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_of_gray_keep_their_upper_eight(tmp_path, ending):
    Image.fromarray(GREY_16).save(tmp_path / f"a.{ending}")
    assert (pixels(tmp_path / f"a.{ending}") == (GREY_16 // 256)[..., None]).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("ending", ["png", "tif", "pgm", "jp2"])
def test_gray_of_any_depth_fills_the_range(tmp_path, ending, bits):
    ramp = np.arange(256, dtype="uint16").reshape(16, 16)
    Image.fromarray(ramp << (bits - 8)).save(tmp_path / f"a.{ending}")
    assert (pixels(tmp_path / f"a.{ending}") == ramp[..., None]).all()


@pytest.mark.parametrize("ending", ["png", "tif", "pbm", "gif"])
def test_one_bit_is_black_and_white(tmp_path, ending):
    Image.fromarray(np.array([[False, True]])).save(tmp_path / f"a.{ending}")
    assert pixels(tmp_path / f"a.{ending}")[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.5, 1]], "float32"), [0, 128, 255]),
        (np.array([[0, 51, 102]], "float32"), [0, 51, 102]),
        (np.array([[-1000, 0, 3000]], "float32"), [0, 64, 255]),
        (np.array([[290.5, 310.5, np.nan]], "float32"), [0, 255, 0]),
        (np.array([[7, 7, 7e9]], "float32"), [0, 0, 255]),
        (np.array([[-2, 0, 2]], "int32"), [0, 128, 255]),
        (np.array([[70000, 70000, 70000]], "int32"), [0, 0, 0]),
    ],
)
def test_gray_without_a_known_white_is_scaled_from_its_least_to_its_most(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == expected


def test_gray_with_white_as_zero_is_inverted(tmp_path):
    Image.fromarray(np.array([[0, 4095]], "uint16")).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_sixteen_bits_of_color_are_scaled_to_the_range(tmp_path, bits):
    ramp = np.linspace(0, 2**bits - 1, 16).astype(">u2")
    rows = b"\0" + np.stack([ramp, ramp, ramp[::-1]], axis=1).tobytes()
    (tmp_path / "a.png").write_bytes(png(16, 1, 16, rows))
    red, _, blue = pixels(tmp_path / "a.png")[0].T.astype(int)
    assert red[0] == 0 and red[-1] >= 240 and (red == blue[::-1]).all()


@pytest.mark.parametrize("ending", ["jfif", "jpe", "avif", "jp2", "gif", "webp", "tiff", "qoi", "JPG"])
def test_what_pillow_reads_counts_as_an_image(tmp_path, ending, colors):
    colors.save(tmp_path / f"a.{ending}")
    assert is_image(str(tmp_path / f"a.{ending}")) and pixels(tmp_path / f"a.{ending}").shape == COLORS.shape


def test_without_a_known_ending_the_content_decides(tmp_path, colors):
    colors.save(tmp_path / "a", format="JPEG")
    (tmp_path / "b").write_text("notes")
    assert [is_image(str(tmp_path / name)) for name in ("a", "b", "missing")] == [True, False, False]


def test_postscript_is_not_executed(tmp_path, colors):
    colors.save(tmp_path / "a.jpg", format="EPS")
    with pytest.raises(BadImage, match=r"a\.jpg: expected an image"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("start", "extra"), [(b"\0\0\0\x18ftypheic" + bytes(200), "heif"), (bytes(128) + b"DICM" + bytes(50), "dicom")]
)
def test_a_kind_that_needs_a_package_names_its_extra(tmp_path, start, extra, monkeypatch):
    monkeypatch.setitem(images.PACKAGES, extra, "no_such_package")
    (tmp_path / "a.x").write_bytes(start)
    with pytest.raises(BadImage, match=rf"a\.x.*pip install 'promptlearn-clip\[{extra}\]'"):
        read_image(tmp_path / "a.x")
    ending = {"heif": ".heic", "dicom": ".dcm"}[extra]
    assert not is_image(f"a{ending}") and f"[{extra}]" in why_not_read([ending])
    assert why_not_read([".NEF", ".txt"]) == "To read .nef files, convert them to JPEG or PNG."


def test_heic_is_read_with_its_package(tmp_path, colors):
    pytest.importorskip("pillow_heif", reason="need pillow-heif (pip install 'promptlearn-clip[heif]')")
    images.image_endings()  # registers it
    colors.resize((64, 64)).save(tmp_path / "a.heic", quality=100)
    assert is_image(str(tmp_path / "a.heic")) and pixels(tmp_path / "a.heic").shape == (64, 64, 3)


def test_dicom_is_read_through_its_own_scale(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="need pydicom (pip install 'promptlearn-clip[dicom]')")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    data = FileDataset(str(tmp_path / "a.dcm"), {}, file_meta=meta, preamble=bytes(128))
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 1, 3, 1, "MONOCHROME1"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = np.array([0, 2047, 4095], "<u2").tobytes()
    pydicom.dcmwrite(tmp_path / "a.dcm", data)
    assert is_image(str(tmp_path / "a.dcm"))
    assert pixels(tmp_path / "a.dcm")[0, :, 0].tolist() == [255, 128, 0]


def test_cmyk_is_converted(tmp_path, colors):
    colors.convert("CMYK").save(tmp_path / "a.tif")
    assert (pixels(tmp_path / "a.tif") == COLORS).all()


@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 128, 255])])
def test_a_palette_gives_its_colors_and_transparency_is_dropped(tmp_path, colors, transparency):
    palette = colors.quantize(6, dither=Image.Dither.NONE)
    palette.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    assert (pixels(tmp_path / "a.png") == np.asarray(palette.convert("RGB"))).all()
    colors.putalpha(100)
    colors.save(tmp_path / "b.png")
    assert (pixels(tmp_path / "b.png") == COLORS).all()


def test_a_rotation_in_exif_is_not_applied_as_in_the_family(tmp_path, colors):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    colors.save(tmp_path / "a.png", exif=exif)
    assert (pixels(tmp_path / "a.png") == COLORS).all()


def test_an_animation_gives_its_first_frame(tmp_path, colors):
    colors.save(tmp_path / "a.webp", save_all=True, append_images=[Image.new("RGB", (2, 3))], lossless=True)
    assert (pixels(tmp_path / "a.webp") == COLORS).all()


def test_the_content_counts_not_the_extension(tmp_path, colors):
    colors.save(tmp_path / "a.jpg", format="PNG")
    assert (pixels(tmp_path / "a.jpg") == COLORS).all()


def test_a_missing_file_a_folder_and_a_damaged_image_are_named(tmp_path):
    with pytest.raises(MissingFile, match=r"a\.png: expected an image file"):
        read_image(tmp_path / "a.png")
    with pytest.raises(UserError, match="expected a readable file, got an error"):
        read_image(tmp_path)
    for ending in ("png", "jpg", "gif", "tif", "webp", "bmp"):
        path = tmp_path / f"a.{ending}"
        Image.effect_noise((64, 64), 50).convert("RGB").save(path)
        whole = path.read_bytes()
        for damaged in (b"", b"no image", whole[:30], whole[: len(whole) // 2]):
            path.write_bytes(damaged)
            with pytest.raises(BadImage, match=rf"a\.{ending}: expected an image"):
                read_image(path)


def test_a_huge_image_in_a_small_file_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path, small = tmp_path / "a.png", tmp_path / "small.png"
    Image.new("1", (12_600, 12_600)).save(path)
    Image.new("RGB", (64, 64)).save(small)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(BadImage, match=r"a\.png: expected at most 90 million pixels .*, got 12600 x 12600\. Shrink"):
        read_image(path)
    with pytest.raises(BadImage, match="expected at most 0.004 million pixels"):
        read_image(small, max_megapixels=0.004)
