"""A dataset's folder is laid out completely, with nothing done twice, and resumes after any interruption."""

import errno
import fcntl
import hashlib
import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from basics import UserError
from promptlearn.prepare import layout
from promptlearn.prepare.layout import delete_archives, is_prepared, lay_out, record_prepared
from promptlearn.prepare.sources import File, Source


def tar(mode="w:gz", **files) -> bytes:
    """Pack a tar archive of {path: content}; "__" in a name stands for "/"."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def published(name: str, data: bytes, **more) -> File:
    return File(name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), **more)


IMAGES = tar(pets__images__1=b"one", pets__images__2=b"two", pets__list=b"1 2")
NAMES = b"cat\ndog\n"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "DATA"


@pytest.fixture
def pets(site):
    """Serve a source of one archive, of which two parts are wanted, and one file."""
    site.files = {"/images.tar.gz": IMAGES, "/names.txt": NAMES}
    gives = {"images": "pets/images", "lists/all.txt": "pets/list"}
    files = (
        published("images.tar.gz", IMAGES, urls=(f"{site.url}/images.tar.gz",), gives=gives),
        published("names.txt", NAMES, urls=(f"{site.url}/names.txt",)),
    )
    return Source("Pets", "pets", classes=2, images={}, files=files)


LAID_OUT = {"images/1": b"one", "images/2": b"two", "lists/all.txt": b"1 2", "names.txt": NAMES}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def quiet(line):
    pass


def test_a_dataset_is_laid_out(pets, root):
    lay_out(pets, root, quiet)
    assert contents(root / "pets") == {**LAID_OUT, "images.tar.gz": IMAGES}
    assert pets.missing(root) == []


def test_a_second_call_does_nothing(pets, root, site):
    lay_out(pets, root, quiet)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    site.requests.clear()
    lay_out(pets, root, quiet)
    assert site.requests == []
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_a_complete_folder_may_be_read_only(pets, root, monkeypatch):
    lay_out(pets, root, quiet)
    monkeypatch.setattr(layout, "open", refuse_to_write, raising=False)
    lay_out(pets, root, quiet)
    (root / "pets/names.txt").unlink()
    with pytest.raises(UserError, match="pets: expected a writable folder, got an error: .*Read-only file system"):
        lay_out(pets, root, quiet)


def refuse_to_write(path, mode):
    raise OSError(errno.EROFS, "Read-only file system")


def test_existing_files_are_left_alone(pets, root, site, tmp_path):
    # Laid out by hand, with a link to images elsewhere.
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "1").write_bytes(b"my own")
    (root / "pets").mkdir(parents=True)
    (root / "pets/images").symlink_to(mine)
    lay_out(pets, root, quiet)
    assert contents(mine) == {"1": b"my own"}
    assert (root / "pets/lists/all.txt").read_bytes() == b"1 2"


def test_an_existing_archive_is_used_after_its_hash_was_checked(pets, root, site):
    (root / "pets").mkdir(parents=True)
    (root / "pets/images.tar.gz").write_bytes(IMAGES)
    lay_out(pets, root, quiet)
    assert [path for path, _ in site.requests] == ["/names.txt"]

    (root / "pets/images/1").unlink()
    (root / "pets/images/2").unlink()
    (root / "pets/images.tar.gz").write_bytes(IMAGES[::-1])
    with pytest.raises(UserError, match="expected sha256.*not the published file. Delete it"):
        lay_out(pets, root, quiet)


def test_a_failure_does_not_stop_the_other_files(pets, root, site):
    del site.files["/images.tar.gz"]
    with pytest.raises(UserError, match="(?s)Pets is incomplete.*404.*put images.tar.gz into .*pets yourself"):
        lay_out(pets, root, quiet)
    assert contents(root / "pets") == {"names.txt": NAMES}


def test_an_unsafe_archive_leaves_nothing(root, site):
    evil = tar(images__1=b"one", **{"..__..__evil": b"x"})
    site.files["/evil.tar"] = evil
    file = published("evil.tar", evil, urls=(f"{site.url}/evil.tar",), gives={"images": "images"})
    with pytest.raises(UserError, match="leads out of its folder"):
        lay_out(Source("Evil", "evil", 1, {}, (file,)), root, quiet)
    assert contents(root) == {"evil/evil.tar": evil}


def test_archives_are_deleted_on_request(pets, root):
    lay_out(pets, root, quiet)
    delete_archives(pets, root)
    assert contents(root / "pets") == LAID_OUT
    assert pets.missing(root) == []


class TestByHand:
    source = Source(
        "Cars",
        "cars",
        classes=2,
        images={},
        files=(
            published("images.tar.gz", IMAGES, gives={"images": "pets/images"}, by_hand="a friend"),
            published("names.txt", NAMES, by_hand="a friend", unless="split.json"),
        ),
    )

    def test_the_message_names_files_and_folders(self, root):
        with pytest.raises(UserError) as caught:
            lay_out(self.source, root, quiet)
        for data, name in ((IMAGES, "images.tar.gz"), (NAMES, "names.txt")):
            digest = hashlib.sha256(data).hexdigest()
            assert f"{name}: put it into {root}/cars ({len(data):,} bytes, sha256 {digest}" in str(caught.value)
        assert "only needed without split.json). Get it from a friend" in str(caught.value)

    def test_existing_files_complete_the_layout(self, root):
        (root / "cars").mkdir(parents=True)
        (root / "cars/images.tar.gz").write_bytes(IMAGES)
        (root / "cars/split.json").write_text("{}")  # with which names.txt is not needed
        lay_out(self.source, root, quiet)
        assert self.source.missing(root) == []
        assert (root / "cars/images/1").read_bytes() == b"one"

    def test_another_file_of_the_same_name_is_refused(self, root):
        (root / "cars").mkdir(parents=True)
        (root / "cars/images.tar.gz").write_bytes(b"something else")
        with pytest.raises(UserError, match=f"expected {len(IMAGES):,} bytes, got 14"):
            lay_out(self.source, root, quiet)


def test_an_equivalent_file_of_another_dataset_is_copied(root):
    file = File("classnames.txt", urls=("http://127.0.0.1:9/",), same_as="imagenet/classnames.txt")
    (root / "imagenet").mkdir(parents=True)
    (root / "imagenet/classnames.txt").write_bytes(NAMES)
    lay_out(Source("V2", "v2", 2, {}, (file,)), root, quiet)
    assert (root / "v2/classnames.txt").read_bytes() == NAMES


class TestImageNet:
    """Class folders from the archives of image-net.org: a tar for each class, and a flat one with a development kit."""

    def devkit(self) -> bytes:
        fields = [("ILSVRC2012_ID", "u2"), ("WNID", "O"), ("num_children", "u1")]
        synsets = np.array([[(1, "n01", 0)], [(2, "n02", 0)], [(1001, "n99", 2)]], dtype=fields)
        out = io.BytesIO()
        savemat(out, {"synsets": synsets})
        folder = "ILSVRC2012_devkit_t12__data__"
        return tar(
            **{f"{folder}meta.mat": out.getvalue(), f"{folder}ILSVRC2012_validation_ground_truth.txt": b"2\n1\n2"}
        )

    def test_a_manually_filled_folder_is_laid_out(self, root):
        train = tar("w", **{"n01.tar": tar("w", **{"n01_7.JPEG": b"7"}), "n02.tar": tar("w", **{"n02_8.JPEG": b"8"})})
        val = tar("w", **{f"ILSVRC2012_val_0000000{n}.JPEG": b"%d" % n for n in (3, 1, 2)})
        kit = self.devkit()  # once: the archive holds the time
        devkit = published("devkit.tar.gz", kit, by_hand="image-net.org")
        files = (
            published("train.tar", train, by_hand="image-net.org", gives={"images/train": ""}, inner="n*.tar"),
            published("val.tar", val, by_hand="image-net.org", gives={"images/val": ""}, devkit=devkit),
        )
        source = Source("ImageNet", "imagenet", 2, {}, files)
        with pytest.raises(UserError, match="(?s)train.tar: put it into.*val.tar: put.*devkit.tar.gz: put"):
            lay_out(source, root, quiet)

        for name, data in (("train.tar", train), ("val.tar", val), ("devkit.tar.gz", kit)):
            (root / "imagenet" / name).write_bytes(data)
        lay_out(source, root, quiet)
        assert contents(root / "imagenet/images") == {
            "train/n01/n01_7.JPEG": b"7",
            "train/n02/n02_8.JPEG": b"8",
            "val/n01/ILSVRC2012_val_00000002.JPEG": b"2",
            "val/n02/ILSVRC2012_val_00000001.JPEG": b"1",
            "val/n02/ILSVRC2012_val_00000003.JPEG": b"3",
        }
        delete_archives(source, root)
        assert [path.name for path in (root / "imagenet").iterdir()] == ["images"]


def test_two_processes_cannot_prepare_the_same_folder(pets, root):
    (root / "pets").mkdir(parents=True)
    with open(root / "pets/.preparing", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="expected no other process in it"):
            lay_out(pets, root, quiet)
    lay_out(pets, root, quiet)  # the file alone, left by a dead process, blocks nothing


def test_a_file_system_without_locks_is_accepted(pets, root, monkeypatch, capsys):
    def no_locks(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lay_out(pets, root, quiet)
    assert pets.missing(root) == []
    assert "its file system has no locks" in capsys.readouterr().err


def test_a_dataset_stays_prepared_until_a_file_is_missing(pets, root):
    lay_out(pets, root, quiet)
    assert not is_prepared(pets, root)
    record_prepared(pets, root)
    assert is_prepared(pets, root)
    (root / "pets/names.txt").unlink()
    assert not is_prepared(pets, root)


# Forks a process that lays out a dataset and kills itself (-9) before its n-th change below the root; a second process
# must then complete the folder. For n = 0, 1, ... until the first process finishes.
KILL_EVERYWHERE = """
import json, os, shutil, signal, sys
from pathlib import Path
from promptlearn.prepare.layout import lay_out
from promptlearn.prepare.sources import File, Source

root, files = Path(sys.argv[1]), [File(**entry) for entry in json.loads(sys.argv[2])]
source = Source("Pets", "pets", 2, {}, tuple(files))
os.sync = lambda: None  # syncs the whole machine: too slow for so many rounds

def child(kill_at=None):
    if process := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    seen = 0
    def count(event, arguments):
        nonlocal seen
        reads = event in ("os.scandir", "os.listdir") or event == "open" and arguments[1] in ("r", "rb")
        if not reads and any(str(root) in str(argument) for argument in arguments):
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
    sys.addaudithook(count)
    lay_out(source, root, lambda line: None)
    os._exit(0)

def tree():
    return {str(path.relative_to(root)): path.read_bytes().hex() for path in root.rglob("*") if path.is_file()}

assert child() == 0
expected, killed = tree(), 0
while True:
    shutil.rmtree(root)
    root.mkdir()
    status = child(killed)
    assert status in (0, -signal.SIGKILL), status
    for name in ("images/1", "images/2", "lists/all.txt", "names.txt", "images.tar.gz"):
        path = "pets/" + name  # complete or absent, and all images or none
        assert tree().get(path, expected[path]) == expected[path], (killed, path)
    assert ("pets/images/1" in tree()) == ("pets/images/2" in tree()), killed
    if status == 0:
        break
    assert child() == 0
    assert tree() == expected, (killed, sorted(tree()))
    killed += 1
print(killed)
"""


def test_a_layout_killed_anywhere_is_completed_by_the_next_run(pets, root, site):
    site.etag = '"one"'
    entries = [
        {"name": f.name, "urls": f.urls, "bytes": f.bytes, "sha256": f.sha256, "gives": f.gives} for f in pets.files
    ]
    done = subprocess.run(
        [sys.executable, "-c", KILL_EVERYWHERE, str(root), json.dumps(entries)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
