"""Archives give what is wanted, and unsafe ones are refused."""

import gzip
import io
import random
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from basics import UserError
from promptlearn.prepare import unpack as module
from promptlearn.prepare.unpack import CHUNK, unpack

IMAGES = {"a.jpg": b"aaa", "deep/b.jpg": b"b" * 5000}
FILES = {**{f"pets/images/{name}": data for name, data in IMAGES.items()}, "pets/list.txt": b"a\nb\n", "other/c": b"c"}
ALL = {"all": ""}


def tar_member(name: str, data: bytes = b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_bytes(*members) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_bytes(*members) -> bytes:
    """Pack a zip of (name, data, Unix mode)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return out.getvalue()


def link(name: str, target: str, kind=tarfile.SYMTYPE):
    return tar_member(name, type=kind, linkname=target)


def device(name: str, kind=tarfile.CHRTYPE):
    return tar_member(name, type=kind, devmajor=1, devminor=3)


TAR = tar_bytes(*(tar_member(name, data) for name, data in FILES.items()))
ZIP = zip_bytes(*((name, data, 0o644) for name, data in FILES.items()))


@pytest.fixture(autouse=True)
def small_bombs(monkeypatch):
    monkeypatch.setattr(module, "ALWAYS_ALLOWED", 3 * CHUNK)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def pack(tmp_path):
    def write(data: bytes) -> Path:
        path = tmp_path / "archive"
        path.write_bytes(data)
        return path

    return write


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("data", [TAR, gzip.compress(TAR), ZIP], ids=["tar", "tar.gz", "zip"])
class TestIntactArchive:
    def test_an_archive_is_extracted_completely(self, data, pack, out):
        unpack(pack(data), ALL, out)
        assert contents(out / "all") == FILES

    def test_wanted_parts_get_the_wanted_names(self, data, pack, out):
        unpack(pack(data), {"photos": "pets/images", "names.txt": "pets/list.txt"}, out)
        assert contents(out) == {
            "photos/a.jpg": b"aaa",
            "photos/deep/b.jpg": b"b" * 5000,
            "names.txt": FILES["pets/list.txt"],
        }

    def test_an_archive_without_the_wanted_parts_is_refused(self, data, pack, out):
        with pytest.raises(UserError, match="expected an archive that holds pets/nothing"):
            unpack(pack(data), {"images": "pets/nothing", "o": "other"}, out)

    def test_a_truncated_archive_is_refused(self, data, pack, out):
        for kept in (len(data) // 3, len(data) * 2 // 3):
            with pytest.raises(UserError, match="expected"):
                unpack(pack(data[:kept]), {path: path for path in FILES}, out)
            shutil.rmtree(out, ignore_errors=True)

    def test_a_damaged_archive_never_causes_a_traceback(self, data, pack, out):
        rng = random.Random(0)
        refused = 0
        for number in range(150):
            damaged = bytearray(data)
            for _ in range(rng.choice([1, 2, 20])):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            try:
                unpack(pack(bytes(damaged)), ALL, out / str(number))
            except UserError:
                refused += 1
        assert refused > 15


BIG = b"\0" * CHUNK
SLINK, SCHR, SFIFO = stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o644, stat.S_IFIFO | 0o644
OUTSIDE = "leads out of its folder"
NO_FILE = "which is no file before it"
TOO_MUCH = "more files or bytes than any dataset"
ATTACKS = {
    "tar: absolute path": (tar_bytes(tar_member("/tmp/evil", b"x")), OUTSIDE),
    "tar: ..": (tar_bytes(tar_member("../evil", b"x")), OUTSIDE),
    "tar: .. in the middle": (tar_bytes(tar_member("a/b/../../../evil", b"x")), OUTSIDE),
    "tar: .. of a folder": (tar_bytes(tar_member("../evil", type=tarfile.DIRTYPE)), OUTSIDE),
    "tar: backslashes": (tar_bytes(tar_member("..\\evil", b"x")), OUTSIDE),
    "tar: a drive's letter": (tar_bytes(tar_member("C:/evil", b"x")), OUTSIDE),
    "tar: link to an absolute path": (tar_bytes(link("passwd", "/etc/passwd")), NO_FILE),
    "tar: link out": (tar_bytes(link("a/up", "../../outside")), NO_FILE),
    "tar: hard link out": (tar_bytes(link("passwd", "../../etc/passwd", tarfile.LNKTYPE)), NO_FILE),
    "tar: file through a link to a folder": (
        tar_bytes(tar_member("d", type=tarfile.DIRTYPE), link("e", "d"), tar_member("e/x", b"x")),
        NO_FILE,
    ),
    "tar: link to nothing": (tar_bytes(link("a", "b")), NO_FILE),
    "tar: link to itself": (tar_bytes(link("a", "a")), NO_FILE),
    "tar: bomb of links": (
        tar_bytes(tar_member("a", BIG), *(link(f"l{n}", "a", tarfile.LNKTYPE) for n in range(50))),
        TOO_MUCH,
    ),
    "tar: device": (tar_bytes(device("null")), "device or pipe"),
    "tar: block device": (tar_bytes(device("disk", tarfile.BLKTYPE)), "device or pipe"),
    "tar: pipe": (tar_bytes(device("pipe", tarfile.FIFOTYPE)), "device or pipe"),
    "tar: file and folder of one name": (tar_bytes(tar_member("a", b"x"), tar_member("a/b", b"x")), "unpacked"),
    "tar.gz: bomb": (gzip.compress(tar_bytes(*(tar_member(f"{n}", BIG) for n in range(4)))), TOO_MUCH),
    "tar.gz: bomb after the end": (gzip.compress(TAR + BIG * 4), "continues after its end"),
    "tar.gz: size without bytes": (gzip.compress(tar_bytes()[:512]), "expected"),
    "tar: header that fills the memory": (
        tar_member("x" * 200)[0].tobuf(tarfile.GNU_FORMAT).replace(b"%011o\0" % 201, b"%011o\0" % (1 << 32)),
        "impossible size|damaged",
    ),
    "zip: absolute path": (zip_bytes(("/tmp/evil", b"x", 0o644)), OUTSIDE),
    "zip: ..": (zip_bytes(("a/../../evil", b"x", 0o644)), OUTSIDE),
    "zip: backslashes": (zip_bytes(("..\\evil", b"x", 0o644)), OUTSIDE),
    "zip: link to an absolute path": (zip_bytes(("passwd", b"/etc/passwd", SLINK)), NO_FILE),
    "zip: link out": (zip_bytes(("a/up", b"../../outside", SLINK)), NO_FILE),
    "zip: link with a target of megabytes": (zip_bytes(("a", b"a" * CHUNK, SLINK)), NO_FILE),
    "zip: device": (zip_bytes(("null", b"", SCHR)), "device or pipe"),
    "zip: pipe": (zip_bytes(("pipe", b"", SFIFO)), "device or pipe"),
    "zip: bomb": (zip_bytes(*((f"{n}", BIG, 0o644) for n in range(4))), TOO_MUCH),
    "neither tar nor zip": (b"#!/bin/sh\necho evil\n" * 100, "damaged"),
    "empty": (b"", "damaged"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_unsafe_archive_is_refused_and_leaves_nothing_outside(attack, pack, out, tmp_path):
    data, reason = ATTACKS[attack]
    archive = pack(data)
    with pytest.raises(UserError, match=reason):
        unpack(archive, ALL, out)
    assert {path for path in tmp_path.iterdir()} <= {archive, out}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("attack", ["tar: ..", "tar: device", "zip: link out"])
def test_an_unsafe_entry_that_is_not_wanted_is_refused(attack, pack, out):
    data, reason = ATTACKS[attack]
    with pytest.raises(UserError, match=reason):
        unpack(pack(data), {"images": "images"}, out)


def test_too_many_files_are_refused(pack, out, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILES", 3)
    with pytest.raises(UserError, match=TOO_MUCH):
        unpack(pack(TAR), ALL, out)


def test_a_zip_gives_no_more_bytes_than_it_states(pack, out, monkeypatch):
    # Its directory states a size of one byte.
    data = zip_bytes(("a", b"a" * 5000, 0o644)).replace((5000).to_bytes(4, "little"), (1).to_bytes(4, "little"))
    with pytest.raises(UserError, match="damaged"):
        unpack(pack(data), ALL, out)
    assert sum(map(len, contents(out).values())) <= 1


def test_an_encrypted_zip_is_refused(pack, out):
    data = bytearray(ZIP)
    data[data.index(b"PK\x01\x02") + 8] |= module.ENCRYPTED
    with pytest.raises(UserError, match="is encrypted"):
        unpack(pack(bytes(data)), ALL, out)


@pytest.mark.parametrize(
    "data",
    [
        tar_bytes(tar_member("d/a", b"text"), link("d/sub/soft", "../a"), link("hard", "d/a", tarfile.LNKTYPE)),
        zip_bytes(("d/a", b"text", 0o644), ("d/sub/soft", b"../a", SLINK), ("hard", b"d/a", SLINK)),
    ],
    ids=["tar", "zip"],
)
def test_a_link_within_the_archive_becomes_a_copy(data, pack, out):
    unpack(pack(data), ALL, out)
    assert contents(out / "all") == {"d/a": b"text", "d/sub/soft": b"text", "hard": b"text"}
    assert not any(path.is_symlink() for path in out.rglob("*"))


class TestNestedArchives:
    def test_members_are_placed_below_the_archives_name(self, pack, out):
        # Like ImageNet's training images: one tar per class.
        classes = {"n01.tar": {"n01_1.JPEG": b"1"}, "n02.tar": {"n02_1.JPEG": b"2", "n02_2.JPEG": b"3"}}
        inner = [
            tar_member(name, tar_bytes(*(tar_member(*file) for file in files.items())))
            for name, files in classes.items()
        ]
        unpack(pack(tar_bytes(*inner, tar_member("README", b"r"))), {"images/train": ""}, out, inner="n*.tar")
        assert contents(out / "images/train") == {
            "n01/n01_1.JPEG": b"1",
            "n02/n02_1.JPEG": b"2",
            "n02/n02_2.JPEG": b"3",
        }

    def test_only_the_matching_archive_is_opened(self, pack, out):
        # Like Caltech-101's zip, which holds the images as a tar.gz.
        members = [("c/o.tar.gz", gzip.compress(TAR), 0o644), ("c/notes.tar", b"no tar", 0o644)]
        unpack(pack(zip_bytes(*members)), {"images": "c/o/pets/images"}, out, inner="c/o.tar.gz")
        assert contents(out / "images") == IMAGES

    def test_unsafe_entries_are_refused(self, pack, out):
        data = tar_bytes(tar_member("n01.tar", tar_bytes(tar_member("../../evil", b"x"))))
        with pytest.raises(UserError, match=OUTSIDE):
            unpack(pack(data), ALL, out, inner="n*.tar")

    def test_bombs_are_refused(self, pack, out):
        bomb = gzip.compress(tar_bytes(*(tar_member(f"{n}", BIG) for n in range(2))))
        data = tar_bytes(*(tar_member(f"n{n}.tar", bomb) for n in range(3)))
        with pytest.raises(UserError, match=TOO_MUCH):
            unpack(pack(data), ALL, out, inner="n*.tar")


def test_the_checksum_at_the_end_is_verified(pack, out):
    data = bytearray(gzip.compress(TAR))
    data[-8:-4] = zlib.crc32(b"other").to_bytes(4, "little")
    with pytest.raises(UserError, match="damaged"):
        unpack(pack(bytes(data)), ALL, out)
