"""`dassl data`: from a server on loopback to a dataset that a run reads."""

import hashlib
import io
import json
import os
import signal
import tarfile
from dataclasses import replace

import gdown
import numpy as np
import pytest
from loopback import Site
from PIL import Image

from promptlearn.cli import data, main
from promptlearn.prepare import download
from promptlearn.prepare.sources import File, read_sources

BREEDS = ("abyssinian", "beagle")
SPLIT = {
    part: [[f"{breed}_{part}{n}.jpg", label, breed] for label, breed in enumerate(BREEDS) for n in range(count)]
    for part, count in (("train", 3), ("val", 2), ("test", 1))
}


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16 + seed, 3), dtype=np.uint8)).save(out, "jpeg")
    return out.getvalue()


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for seed, (name, *_) in enumerate(sum(SPLIT.values(), [])):
            info = tarfile.TarInfo(f"images/{name}")
            info.size = len(picture(seed))
            tar.addfile(info, io.BytesIO(picture(seed)))
    return out.getvalue()


@pytest.fixture
def site(monkeypatch):
    """Serve a small Oxford Pets; Google Drive has its split."""
    images, site = archive(), Site()
    site.files["/images.tar.gz"] = images
    sha256 = hashlib.sha256(images).hexdigest()
    files = (
        File(
            "images.tar.gz",
            (f"{site.url}/images.tar.gz",),
            bytes=len(images),
            sha256=sha256,
            gives={"images": "images"},
        ),
        File("split_zhou_OxfordPets.json", drive="pets-split"),
    )
    sizes = {part: len(items) for part, items in SPLIT.items()}

    def small(path):
        sources = read_sources(path)
        return {**sources, "OxfordPets": replace(sources["OxfordPets"], classes=2, images=sizes, files=files)}

    def drive(id, output, **more):
        site.requests.append((id, None))
        with open(output, "w") as file:
            json.dump(SPLIT, file)

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setattr(data, "read_sources", small)
    monkeypatch.setattr(gdown, "download", drive)
    yield site
    site.close()


@pytest.fixture
def call(tmp_path, capsys, site):
    """Run `dassl data ...` with DATA as its root; returns status, stdout and stderr."""

    def run(verb, *arguments, root=True):
        status = main(["data", verb, *arguments, *(["--root", str(tmp_path / "DATA")] if root else [])])
        return status, *capsys.readouterr()

    run.folder = tmp_path / "DATA" / "oxford_pets"
    return run


def test_prepare_creates_the_dataset_as_published(call):
    status, _, err = call("prepare", "oxford_pets")
    assert status == 0, err
    assert "oxford_pets: prepared and verified" in err
    assert sorted(path.name for path in call.folder.iterdir()) == [
        ".prepared.json", "images", "images.tar.gz", "split_zhou_OxfordPets.json"
    ]  # fmt: skip
    assert call("verify", "oxford_pets", "--images")[:2] == (0, "oxford_pets: ok\n")


def test_a_second_prepare_does_nothing(call, site):
    call("prepare", "OxfordPets")  # the registered name serves as well
    before = {path: path.stat().st_mtime_ns for path in call.folder.rglob("*")}
    site.requests.clear()
    status, _, err = call("prepare", "oxford_pets")
    assert (status, site.requests) == (0, [])
    assert "prepared and verified already" in err
    assert {path: path.stat().st_mtime_ns for path in call.folder.rglob("*")} == before


def test_archives_are_deleted_on_request(call):
    assert call("prepare", "oxford_pets", "--delete-archives")[0] == 0
    assert not (call.folder / "images.tar.gz").exists()


def test_a_folder_whose_record_cannot_be_written_is_prepared(call):
    call("prepare", "oxford_pets")
    (call.folder / ".prepared.json").unlink()
    (call.folder / ".prepared.json").mkdir()
    status, _, err = call("prepare", "oxford_pets", "--delete-archives")
    assert status == 0
    assert "Note: the next call will verify it again" in err
    assert not (call.folder / "images.tar.gz").exists()


def test_prepare_names_missing_files_and_completes_later(call, site):
    images = site.files.pop("/images.tar.gz")
    status, _, err = call("prepare", "oxford_pets", "digits")
    assert status == 1
    assert "OxfordPets is incomplete" in err and "404" in err
    assert "digits: nothing to prepare" in err
    site.files["/images.tar.gz"] = images
    assert call("prepare", "oxford_pets")[0] == 0


def test_a_split_of_another_size_is_a_failure(call, monkeypatch):
    monkeypatch.setitem(SPLIT, "test", SPLIT["test"][:1])
    status, _, err = call("prepare", "oxford_pets")
    assert status == 1
    assert "OxfordPets: expected 2 test images, got 1" in err
    assert not (call.folder / ".prepared.json").exists()


class TestVerify:
    def test_settings_of_own_photos_are_used(self, call):
        for name in ("animals/cat", "animals/dog", "plants/oak"):
            (call.folder.parent / name).mkdir(parents=True)
            (call.folder.parent / name / "0.jpg").write_bytes(picture(len(name)))
        status, out, _ = call("stats", "image_folder", "--set", "DATASET.CLASS_LEVEL=2")
        assert status == 0 and [line.split()[1] for line in out.splitlines()[2:5]] == ["cat", "dog", "oak"]
        with pytest.raises(SystemExit):
            call("verify", "image_folder", "--set", "DATASET.CLASS_LEVEL")

    def test_own_photos_are_checked_for_leaks_and_alike_names(self, call, tmp_path):
        for name in ("train/Cat/0", "train/cats/0", "test/Cat/0"):
            (tmp_path / "DATA" / name).parent.mkdir(parents=True)
            (tmp_path / "DATA" / f"{name}.jpg").write_bytes(picture(name.count("cats")))
        status, out, _ = call("verify", "image_folder", "--images")
        assert (status, out.splitlines()) == (
            0,
            [
                "image_folder: ok",
                "  Note: 1 images of val or test are in train, too, which inflates the results: "
                "test/Cat/0.jpg = train/Cat/0.jpg",
                "  Note: class names that are alike: 'Cat', 'cats'",
            ],
        )

    def test_missing_files_are_named(self, call):
        status, out, _ = call("verify", "oxford_pets")
        assert status == 1
        assert f"{call.folder}/images: missing" in out
        assert f"{call.folder}/split_zhou_OxfordPets.json: missing" in out
        assert not call.folder.exists()

    def test_missing_images_are_counted_and_named(self, call):
        call("prepare", "oxford_pets")
        (call.folder / "images/beagle_train1.jpg").unlink()
        status, out, _ = call("verify", "oxford_pets")
        assert status == 1
        assert "expected 12 image files, got 11" in out and "beagle_train1.jpg" in out

    def test_images_that_cannot_be_decoded_are_named(self, call):
        call("prepare", "oxford_pets")
        for breed in BREEDS:
            path = call.folder / f"images/{breed}_test0.jpg"
            path.write_bytes(path.read_bytes()[:300])
        assert call("verify", "oxford_pets")[0] == 0  # not looked at
        status, out, _ = call("verify", "oxford_pets", "--images")
        assert status == 1
        assert all(f"{breed}_test0.jpg" in out for breed in BREEDS)

    def test_each_dataset_is_reported_and_one_fault_fails_the_command(self, call):
        call.folder.mkdir(parents=True)
        status, out, _ = call("verify", "digits", "oxford_pets")
        assert status == 1
        assert "digits: ok" in out and "oxford_pets: WRONG" in out


def test_stats_counts_classes_images_and_sizes(call):
    call("prepare", "oxford_pets")
    status, out, _ = call("stats", "oxford_pets")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["1", "beagle", "3", "2", "1"] in lines
    assert ["train", "6", "3", "to", "3,", "median", "3"] in lines
    assert ["width:", "16", "to", "27,", "median", "22"] in lines
    assert ["height:", "12", "to", "12,", "median", "12"] in lines


class TestList:
    def test_shows_sizes_and_manual_downloads(self, call):
        status, out, _ = call("list", root=False)
        assert status == 0
        assert ["oxford_pets", "2", "6", "4", "2"] in [line.split()[:5] for line in out.splitlines() if line]
        assert "nothing to prepare: braille" in out

    def test_shows_which_datasets_are_present(self, call):
        def there():
            return next(line for line in call("list")[1].splitlines() if line.startswith("oxford_pets"))

        assert "missing: images, split_zhou_OxfordPets.json" in there()
        call("prepare", "oxford_pets")
        assert there().endswith("verified")
        (call.folder / ".prepared.json").unlink()
        assert there().endswith("yes")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["verify", "oxford_pet"], "unknown dataset 'oxford_pet'. Did you mean 'oxford_pets'?"),
        (["prepare", "OXFORDPETS"], "Did you mean 'OxfordPets'?"),
    ],
)
def test_a_misspelled_name_is_refused_with_the_nearest(call, arguments, message):
    status, _, err = call(*arguments)
    assert status == 2
    assert message in err


def test_a_dataset_on_disk_needs_its_root(call):
    status, _, err = call("verify", "oxford_pets", root=False)
    assert status == 2
    assert "--root: expected the DATA folder for oxford_pets, got nothing" in err


def test_prepare_needs_a_root(call, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["data", "prepare", "oxford_pets"])
    assert exit.value.code == 2
    assert "--root" in capsys.readouterr().err


def test_a_stop_explains_how_to_resume(call, monkeypatch):
    def stop(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(data, "lay_out", stop)
    status, _, err = call("prepare", "oxford_pets")
    assert status == 143
    assert "Run the same command to resume from here" in err
