"""Every readable kind of image comes in RGB; everything else is refused by its name, with one line."""

import numpy as np
import pytest
from PIL import Image

from basics import BadImage, MissingFile, UserError
from dassl.utils import read_image

COLORS = np.array([[[250, 10, 20], [0, 255, 128]], [[0, 0, 0], [255, 255, 255]], [[9, 90, 190], [60, 50, 40]]], "uint8")
GREY_16 = np.array([[0, 255], [256, 32768], [65280, 65535]], "uint16")


@pytest.fixture
def colors():
    return Image.fromarray(COLORS)


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


@pytest.mark.parametrize("values", [np.eye(2, dtype="float32"), np.full((2, 2), 70000, "int32")])
def test_gray_without_a_known_white_is_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(BadImage, match=r"a\.tif.*outside 0 to 65535; save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


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
    with pytest.raises(UserError, match="cannot open the file"):
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
