"""From the archives' true insides to the real loaders: each of the fifteen datasets is prepared from a small copy."""

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loopback import Site
from PIL import Image
from scipy.io import savemat

from promptlearn.cli import data, main
from promptlearn.prepare.sources import read_sources

PICTURE = io.BytesIO()
Image.new("RGB", (8, 6)).save(PICTURE, "jpeg")
PICTURE = PICTURE.getvalue()


def tar(*paths: str, **contents: bytes) -> bytes:
    """Pack a tar archive of images, and of other files: {path: content}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, content in {**dict.fromkeys(paths, PICTURE), **contents}.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def tgz(*paths: str, **contents: bytes) -> bytes:
    return gzip.compress(tar(*paths, **contents))


def zipped(*paths: str, **contents: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, content in {**dict.fromkeys(paths, PICTURE), **contents}.items():
            archive.writestr(path, content)
    return out.getvalue()


def split(first: str, second: str) -> bytes:
    """Return a split file of two classes; the same image of each in train, val, and test."""
    return json.dumps({part: [[first, 0, "one"], [second, 1, "two"]] for part in ("train", "val", "test")}).encode()


def devkit() -> bytes:
    meta = io.BytesIO()
    synsets = np.array([[(1, "n02")], [(2, "n01")]], dtype=[("ILSVRC2012_ID", "u2"), ("WNID", "O")])
    savemat(meta, {"synsets": synsets})
    files = {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": b"2\n1\n"}
    return tgz(**{f"ILSVRC2012_devkit_t12/data/{name}": content for name, content in files.items()})


CLASSNAMES = {"classnames.txt": b"n01 tench\nn02 goldfish\n"}
FGVC = "fgvc-aircraft-2013b/data"
FILES = {
    "ImageNet": {
        "ILSVRC2012_img_train.tar": tar(**{"n01.tar": tar("n01_1.JPEG", "n01_2.JPEG"), "n02.tar": tar("n02_1.JPEG")}),
        "ILSVRC2012_img_val.tar": tar("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"),
        "ILSVRC2012_devkit_t12.tar.gz": devkit(),
        **CLASSNAMES,
    },
    "Caltech101": {
        "caltech-101.zip": zipped(
            **{
                "caltech-101/101_ObjectCategories.tar.gz": tgz(
                    "101_ObjectCategories/accordion/image_0001.jpg", "101_ObjectCategories/yin_yang/image_0001.jpg"
                ),
                "caltech-101/Annotations.tar": b"not opened",
                "__MACOSX/caltech-101/._Annotations.tar": b"not opened",
            }
        ),
        "split_zhou_Caltech101.json": split("accordion/image_0001.jpg", "yin_yang/image_0001.jpg"),
    },
    "OxfordPets": {
        "images.tar.gz": tgz("images/Abyssinian_1.jpg", "images/beagle_1.jpg"),
        "annotations.tar.gz": tgz(**{"annotations/trainval.txt": b""}),
        "split_zhou_OxfordPets.json": split("Abyssinian_1.jpg", "beagle_1.jpg"),
    },
    "StanfordCars": {
        "cars_train.tgz": tgz("cars_train/00001.jpg"),
        "cars_test.tgz": tgz("cars_test/00001.jpg"),
        "split_zhou_StanfordCars.json": split("cars_train/00001.jpg", "cars_test/00001.jpg"),
    },
    "OxfordFlowers": {
        "102flowers.tgz": tgz("jpg/image_00001.jpg", "jpg/image_00002.jpg"),
        "imagelabels.mat": b"labels",
        "cat_to_name.json": b"{}",
        "split_zhou_OxfordFlowers.json": split("image_00001.jpg", "image_00002.jpg"),
    },
    "Food101": {
        "food-101.tar.gz": tgz(
            "food-101/images/apple_pie/1.jpg",
            "food-101/images/waffles/1.jpg",
            **{f"food-101/{name}": b"text" for name in ("meta/classes.txt", "license_agreement.txt", "README.txt")},
        ),
        "split_zhou_Food101.json": split("apple_pie/1.jpg", "waffles/1.jpg"),
    },
    "FGVCAircraft": {
        "fgvc-aircraft-2013b.tar.gz": tgz(
            f"{FGVC}/images/0000001.jpg",
            f"{FGVC}/images/0000002.jpg",
            **{f"{FGVC}/variants.txt": b"707-320\nF-16A/B\n", "fgvc-aircraft-2013b/vgg_aircraft_devkit.m": b"code"},
            **{
                f"{FGVC}/images_variant_{part}.txt": b"0000001 707-320\n0000002 F-16A/B\n"
                for part in ("train", "val", "test")
            },
        )
    },
    "SUN397": {
        "SUN397.tar.gz": tgz("SUN397/a/abbey/sun_1.jpg", "SUN397/c/church/indoor/sun_1.jpg"),
        "split_zhou_SUN397.json": split("a/abbey/sun_1.jpg", "c/church/indoor/sun_1.jpg"),
    },
    "DescribableTextures": {
        "dtd-r1.0.1.tar.gz": tgz(
            "dtd/images/banded/banded_1.jpg",
            "dtd/images/zigzagged/zigzagged_1.jpg",
            **{"dtd/imdb/imdb.mat": b"mat", "dtd/labels/train1.txt": b"text"},
        ),
        "split_zhou_DescribableTextures.json": split("banded/banded_1.jpg", "zigzagged/zigzagged_1.jpg"),
    },
    "EuroSAT": {
        "EuroSAT.zip": zipped("2750/Forest/Forest_1.jpg", "2750/River/River_1.jpg"),
        "split_zhou_EuroSAT.json": split("Forest/Forest_1.jpg", "River/River_1.jpg"),
    },
    "UCF101": {
        "UCF-101-midframes.zip": zipped(
            "UCF-101-midframes/Apply_Lipstick/v_g01.jpg", "UCF-101-midframes/Yo_Yo/v_g01.jpg"
        ),
        "split_zhou_UCF101.json": split("Apply_Lipstick/v_g01.jpg", "Yo_Yo/v_g01.jpg"),
    },
    "ImageNetV2": {
        "imagenetv2-matched-frequency.tar.gz": tgz(
            *(f"imagenetv2-matched-frequency-format-val/{label}/a.jpeg" for label in (0, 1))
        )
    },
    "ImageNetSketch": {"ImageNet-Sketch.zip": zipped("sketch/n01/sketch_0.JPEG", "sketch/n02/sketch_0.JPEG")},
    "ImageNetA": {
        "imagenet-a.tar": tar("imagenet-a/n01/0.jpg", "imagenet-a/n02/0.jpg", **{"imagenet-a/README.txt": b""})
    },
    "ImageNetR": {
        "imagenet-r.tar": tar("imagenet-r/n01/0.jpg", "imagenet-r/n02/0.jpg", **{"imagenet-r/README.txt": b""})
    },
}
SOURCES = read_sources(Path(__file__).parents[2] / "datasets" / "sources.json")


@pytest.fixture(scope="module")
def site():
    site = Site()
    site.files = {f"/{name}/{file}": content for name, files in FILES.items() for file, content in files.items()}
    yield site
    site.close()


def small(source, site):
    """Give the source our small files instead of the published ones; where each belongs is unchanged."""

    def ours(file):
        content = FILES[source.name].get(file.name)
        if content is None:
            return file
        return replace(
            file,
            urls=(f"{site.url}/{source.name}/{file.name}",),
            drive="",
            by_hand="",
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            md5="",
            devkit=file.devkit and ours(file.devkit),
        )

    images = {part: 3 if (source.name, part) == ("ImageNet", "train") else 2 for part in source.images}
    return replace(source, classes=2, images=images, files=tuple(map(ours, source.files)))


def test_all_fifteen_datasets_are_prepared_in_one_call_and_load(site, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(data, "read_sources", lambda path: {name: small(SOURCES[name], site) for name in SOURCES})
    status = main(["data", "prepare", *SOURCES, "--root", str(tmp_path)])
    err = capsys.readouterr().err
    assert status == 0, err
    assert err.count(": prepared and verified") == len(SOURCES) == 15

    site.requests.clear()
    assert main(["data", "verify", *SOURCES, "--images", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(": ok") == 15
    assert main(["data", "prepare", *SOURCES, "--root", str(tmp_path)]) == 0
    assert site.requests == []
