"""Listing and sampling of large datasets: in streams, without second copies, and with the same order and samples."""

import hashlib
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from basics import UserError
from benchmarks import large_datasets
from dassl.data.datasets import Datum, check_images, read_layout, read_split, read_table, repeats
from dassl.data.datasets.fewshot import _draw_hash
from dassl.data.datasets.splits import relative_entries
from dassl.utils import in_threads
from dassl.utils.tools import AHEAD

IMAGES, CLASSES = 3000, 30
BYTES = 600  # per image at the peak: a Datum, its path, its label's number, its entry in the file, and lists of these


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    large_datasets.make_files(root, CLASSES, IMAGES)
    return root


def peak(function):
    """Return the most bytes that Python held at once."""
    function()  # caches
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "read",
    [
        lambda root: read_layout(str(root / "imagenet" / "images")),
        lambda root: read_table(str(root / "table.csv")),
        lambda root: read_split(str(root / "split.json"), str(root)),
    ],
    ids=["folder", "csv", "split"],
)
def test_a_reader_holds_a_few_hundred_bytes_per_image(root, read):
    assert peak(lambda: read(root)) < BYTES * IMAGES + 2**18


def test_images_of_a_class_share_its_name(root):
    train, _, test = read_split(str(root / "split.json"), str(root))
    assert len({id(item.classname) for item in (*train, *test)}) == CLASSES
    assert len({id(label) for _, label, _ in read_table(str(root / "table.csv"))}) == CLASSES


def test_files_and_folders_that_alternate_keep_the_order_of_their_names(tmp_path):
    names = ["a/1.jpg", "a/2/x.jpg", "a/3.jpg", "b/1.jpg"]
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = read_layout(str(tmp_path / "photos"))["train"]
    assert [Path(path).relative_to(tmp_path / "photos").as_posix() for path, _ in found] == names


def test_the_hash_of_a_sample_is_that_of_its_json(tmp_path):
    train = [Datum(str(tmp_path / "a" / "ü 1.jpg"), 0), Datum(str(tmp_path / "2.jpg"), 1), Datum("/else/3.jpg", 1)]
    for val in ([], train[:1]):
        pairs = {
            part: [[path, label] for path, label, _ in relative_entries(items, str(tmp_path))]
            for part, items in (("train", train), ("val", val))
        }
        expected = hashlib.sha256(json.dumps(pairs, sort_keys=True).encode()).hexdigest()
        assert _draw_hash(train, val, str(tmp_path)) == expected


def test_missing_images_are_counted_once(tmp_path):
    (tmp_path / "there.jpg").touch()
    items = [Datum(str(tmp_path / name)) for name in ("there.jpg", "gone.jpg", "gone.jpg", "below/gone.jpg")]
    with pytest.raises(UserError, match="expected 3 image files, got 1; the first missing ones: .*below/gone"):
        check_images(items, "test")


def test_threads_do_not_run_far_ahead(monkeypatch):
    monkeypatch.setattr("dassl.utils.tools.available_cores", lambda: 2)
    begun = []
    results = in_threads(begun.append, range(1000))
    next(results)
    time.sleep(0.05)
    assert 0 < len(begun) <= 2 * AHEAD + 1
    assert len([*results]) == 999 and len(begun) == 1000


def test_too_many_images_are_not_compared(root, monkeypatch):
    train, _, test = read_split(str(root / "split.json"), str(root))
    monkeypatch.setattr(repeats, "equal_files", lambda paths: pytest.fail("compared"))
    monkeypatch.setattr(repeats, "MOST_COMPARED", IMAGES - 1)
    lines = repeats.doubts({"train": train, "test": test}, ["a", "b"], str(root))
    assert lines == [f"more than {IMAGES - 1:,} images are not compared with one another"]


@pytest.mark.slow
@pytest.mark.parametrize("reader", large_datasets.READERS)
def test_21000_classes_are_listed_in_bounded_memory(tmp_path, reader):
    large_datasets.make_files(tmp_path, large_datasets.CLASSES, 100_000)
    command = [sys.executable, large_datasets.__file__, "--one", reader, "--root", str(tmp_path), "--shots", "2"]
    env = os.environ | {"PYTHONPATH": str(Path(large_datasets.__file__).parents[1])}
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)
    assert found["peak"] * 2**20 < 100_000 * 1000 + 21_000 * 4000 + 2**27
