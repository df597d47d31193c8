"""datasets/sources.json: the facts from which datasets are prepared."""

import re
from pathlib import Path

import pytest

from basics import UserError
from dassl.data.datasets import DATASET_REGISTRY
from promptlearn.experiments.checkout import Checkout
from promptlearn.prepare.sources import read_sources

ROOT = Path(__file__).parents[3]
SOURCES = read_sources(ROOT / "datasets" / "sources.json")
FILES = [(name, file) for name, source in SOURCES.items() for file in source.files]

# CoOp, arXiv:2109.01134, appendix: classes, train, val, test.
PUBLISHED = {
    "ImageNet": (1000, 1281167, 50000, 50000),  # val and test are the same images
    "Caltech101": (100, 4128, 1649, 2465),
    "OxfordPets": (37, 2944, 736, 3669),
    "StanfordCars": (196, 6509, 1635, 8041),
    "OxfordFlowers": (102, 4093, 1633, 2463),
    "Food101": (101, 50500, 20200, 30300),
    "FGVCAircraft": (100, 3334, 3333, 3333),
    "SUN397": (397, 15880, 3970, 19850),
    "DescribableTextures": (47, 2820, 1128, 1692),
    "EuroSAT": (10, 13500, 5400, 8100),
    "UCF101": (101, 7639, 1898, 3783),
    "ImageNetV2": (1000, None, None, 10000),
    "ImageNetSketch": (1000, None, None, 50889),
    "ImageNetA": (200, None, None, 7500),
    "ImageNetR": (200, None, None, 30000),
}


def test_all_fifteen_datasets_have_their_published_sizes():
    found = {
        name: (s.classes, *(s.images.get(part) for part in ("train", "val", "test"))) for name, s in SOURCES.items()
    }
    assert found == PUBLISHED


def test_each_source_has_a_config_and_a_loader_with_the_same_paths():
    checkout = Checkout(ROOT)
    checkout.load("datasets")
    configured = {checkout.registered_name(name) for name in checkout.datasets()}
    for name, source in SOURCES.items():
        loader = DATASET_REGISTRY.get(name)
        assert loader.dataset_dir == source.folder
        assert name in configured
        files = {file.name for file in source.files}
        if loader.split_file:
            assert loader.split_file in files
        assert any(path.startswith(loader.image_dir) for file in source.files for path in file.gives), name


@pytest.mark.parametrize("name, file", FILES, ids=[f"{name}-{file.name}" for name, file in FILES])
def test_each_file_has_an_origin_and_an_identity(name, file):
    assert bool(file.urls or file.drive) != bool(file.by_hand)
    assert all(re.match(r"https?://", url) for url in file.urls)
    assert re.fullmatch(r"[0-9a-f]{64}|", file.sha256) and re.fullmatch(r"[0-9a-f]{32}|", file.md5)
    if file.by_hand:
        assert file.sha256 or file.md5
    for path in (*file.gives, file.unless, file.same_as):
        assert not path.startswith("/") and ".." not in path
    if file.unless:
        assert file.unless in {other.name for other in SOURCES[name].files}
        assert [other.name for other in SOURCES[name].files].index(file.unless) < SOURCES[name].files.index(file)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(UserError, match="expected a file, got nothing"):
        read_sources(tmp_path / "sources.json")
