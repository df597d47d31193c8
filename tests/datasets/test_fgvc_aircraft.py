"""FGVC Aircraft, whose split is its own."""

import pytest

from basics import UserError
from dassl.data.datasets import build_dataset

VARIANTS = ("707-320", "F/A-18", "Cessna 172")
LISTS = {
    "train": ["0000001 F/A-18", "0000002 707-320", "0000003 Cessna 172", "0000004 F/A-18"],
    "val": ["0000005 Cessna 172", "0000006 707-320"],
    "test": ["0000007 F/A-18"],
}


@pytest.fixture
def folder(cfg, tmp_path, put):
    """Create fgvc_aircraft/ as the archive's data/ holds it."""
    cfg.DATASET.NAME = "FGVCAircraft"
    folder = tmp_path / "fgvc_aircraft"
    put(folder / "images", [f"{n:07}.jpg" for n in range(1, 8)])
    (folder / "variants.txt").write_text("\n".join(VARIANTS) + "\n")
    for part, lines in LISTS.items():
        (folder / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_the_official_split_is_read_with_variant_labels(cfg, folder):
    data = build_dataset(cfg)
    assert data.classnames == list(VARIANTS)
    for part, items in (("train", data.train_x), ("val", data.val), ("test", data.test)):
        assert [f"{item.impath[-11:-4]} {item.classname}" for item in items] == LISTS[part]
    assert data.test[0].impath == str(folder / "images" / "0000007.jpg") and data.test[0].label == 1


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("variants.txt", None, "variants.txt: expected a file"),
        ("images_variant_test.txt", "0000007 F-16\n", "test.txt, line 1: expected an image and one of variants.txt"),
        ("images_variant_train.txt", "0000099 F/A-18\n", "expected 4 image files, got 3.*0000099.jpg"),
    ],
)
def test_missing_and_damaged_files_are_named(cfg, folder, file, text, message):
    (folder / file).unlink()
    if text:
        (folder / file).write_text(text)
    with pytest.raises(UserError, match=message):
        build_dataset(cfg)
