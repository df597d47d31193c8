"""Downloads from a misbehaving server."""

import hashlib
import os
import shutil
from functools import partial

import gdown
import pytest
from loopback import send

from basics import UserError
from promptlearn.prepare import download
from promptlearn.prepare.download import ATTEMPTS, OtherFile, check_file, fetch
from promptlearn.prepare.sources import File

DATA = os.urandom(300_000)
HALF = len(DATA) // 2


def published(name="a.tar", data=DATA, **more) -> File:
    return File(name, **{"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **more})


@pytest.fixture
def get(site, tmp_path):
    """Fetch /a.tar (or other paths) from the site and return the downloaded bytes."""
    site.files["/a.tar"] = DATA

    def fetch_it(*paths, **more):
        target = tmp_path / "a.tar"
        fetch(published(urls=tuple(site.url + path for path in paths or ["/a.tar"]), **more), target)
        assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
        return target.read_bytes()

    return fetch_it


def once(misbehavior):
    """Misbehave on the first request only."""
    left = [misbehavior]
    return lambda handler: bool(left) and left.pop()(handler)


def test_a_file_is_downloaded(get, site):
    assert get() == DATA
    assert site.requests == [("/a.tar", None)]


def test_an_interrupted_download_resumes(get, site):
    site.misbehave["/a.tar"] = once(lambda handler: site.answer(handler, cut=HALF))
    assert get() == DATA
    assert site.requests == [("/a.tar", None), ("/a.tar", f"bytes={HALF}-")]


def test_the_next_run_resumes_where_the_last_one_gave_up(get, site, tmp_path):
    site.misbehave["/a.tar"] = lambda handler: (
        site.answer(handler, cut=HALF) if not site.requests[1:] else send(handler, 503, b"")
    )
    with pytest.raises(UserError, match=f"got {HALF:,} bytes, kept in"):
        get()
    assert not (tmp_path / "a.tar").exists()
    del site.misbehave["/a.tar"]
    assert get() == DATA
    assert site.requests[-1] == ("/a.tar", f"bytes={HALF}-")


def test_a_server_that_always_disconnects_but_sends_something_is_tolerated(get, site):
    site.misbehave["/a.tar"] = partial(site.answer, cut=len(DATA) // (3 * ATTEMPTS))
    assert get() == DATA
    assert len(site.requests) >= 3 * ATTEMPTS


def test_a_server_that_ignores_ranges_is_given_up_if_it_always_disconnects(get, site):
    site.misbehave["/a.tar"] = once(lambda handler: site.answer(handler, cut=HALF))
    site.answer = partial(site.answer, ranges=False)
    assert get() == DATA

    site.requests.clear()
    site.misbehave["/a.tar"] = partial(site.answer, cut=HALF)
    with pytest.raises(UserError, match="Run the same command to resume"):
        get()
    assert len(site.requests) == ATTEMPTS


def test_a_partial_download_of_another_file_is_discarded(get, site, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(b"x" * HALF)
    assert get() == DATA
    assert site.requests == [("/a.tar", f"bytes={HALF}-"), ("/a.tar", None)]


def test_a_partial_download_that_is_too_long_is_discarded(get, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(DATA + b"x")
    assert get() == DATA


def test_a_complete_partial_download_is_only_checked(get, site, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(DATA)
    assert get() == DATA
    assert site.requests == []


def test_wrong_bytes_are_refused_and_deleted(get, site, tmp_path):
    site.files["/a.tar"] = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(UserError, match="expected the published file, got another one.*expected sha256 .* got"):
        get()
    assert list(tmp_path.iterdir()) == []


def test_md5_is_used_where_no_sha256_is_published(get, site):
    assert get(sha256="", md5=hashlib.md5(DATA).hexdigest()) == DATA
    site.files["/a.tar"] = DATA[::-1]
    with pytest.raises(UserError, match="expected md5"):
        get(sha256="", md5=hashlib.md5(DATA).hexdigest())


@pytest.mark.parametrize("size", [HALF, len(DATA) + 1, 10**15])
def test_a_wrong_size_is_refused_before_the_download(get, site, tmp_path, size):
    site.misbehave["/a.tar"] = lambda handler: send(handler, 200, DATA, {"Content-Length": str(size)}, cut=len(DATA))
    with pytest.raises(UserError, match=f"expected {len(DATA):,} bytes, got an offer of {size:,}"):
        get()
    assert list(tmp_path.iterdir()) == []


def endless(handler):
    """Send the whole file and more, without a size."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(DATA), DATA))
        handler.wfile.write(b"0\r\n\r\n")
    except OSError:
        pass  # the client disconnected, as it should
    handler.close_connection = True
    return True


def test_a_download_stops_at_the_published_size(get, site, tmp_path):
    site.misbehave["/a.tar"] = endless
    with pytest.raises(UserError, match="expected 300,000 bytes for a.tar, got more"):
        get()
    assert (tmp_path / "a.tar.part").stat().st_size <= len(DATA)


def test_a_file_of_unknown_size_cannot_fill_the_disk(get, site, monkeypatch):
    monkeypatch.setattr(download, "LONGEST", 2 * len(DATA))
    site.misbehave["/a.tar"] = endless
    with pytest.raises(UserError, match="expected 600,000 bytes for a.tar, got more"):
        get(bytes=None, sha256="")


def test_a_full_disk_is_reported_before_the_download(get, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 10, 10))
    with pytest.raises(UserError, match="expected 300,000 free bytes, got 10"):
        get()


def test_redirects_are_followed_and_loops_are_refused(get, site):
    site.misbehave["/moved"] = lambda handler: send(handler, 302, b"", {"Location": "/a.tar"})
    site.misbehave["/loop"] = lambda handler: send(handler, 302, b"", {"Location": "/loop"})
    assert get("/moved") == DATA
    with pytest.raises(UserError, match="redirects"):
        get("/loop")


def test_the_next_url_is_tried_and_all_failures_are_reported(get, site):
    assert get("/gone", "/a.tar") == DATA
    with pytest.raises(UserError, match="(?s)404.*gone.*404.*gone_too"):
        get("/gone", "/gone_too")
    assert site.requests.count(("/gone", None)) == 2  # a missing file is requested only once


def test_a_busy_server_is_tried_again(get, site):
    site.misbehave["/a.tar"] = once(lambda handler: send(handler, 503, b""))
    assert get() == DATA


def test_an_unreachable_server_is_reported(get, site, tmp_path):
    with pytest.raises(UserError, match="127.0.0.1"):
        fetch(published(urls=("http://127.0.0.1:9/a.tar",)), tmp_path / "a.tar")


def test_a_web_page_is_refused_as_an_archive(site, tmp_path):
    site.files["/a.tar"] = b"\n<!DOCTYPE html><p>Please log in"
    with pytest.raises(UserError, match="got a web page"):
        fetch(File("a.tar", urls=(f"{site.url}/a.tar",)), tmp_path / "a.tar")


class TestWithoutAPublishedHash:
    file = {"bytes": None, "sha256": ""}

    def test_the_etag_guards_a_resumed_download(self, get, site):
        site.etag = '"one"'
        site.misbehave["/a.tar"] = once(lambda handler: site.answer(handler, cut=HALF))
        assert get(**self.file) == DATA
        assert site.requests[-1] == ("/a.tar", f"bytes={HALF}-")

    def test_a_file_that_changed_meanwhile_is_downloaded_again(self, get, site):
        def change(handler):
            site.answer(handler, cut=HALF)
            site.files["/a.tar"], site.etag = DATA[::-1], '"two"'
            return True

        site.etag = '"one"'
        site.misbehave["/a.tar"] = once(change)
        assert get(**self.file) == DATA[::-1]

    def test_without_an_etag_nothing_is_resumed(self, get, site):
        site.misbehave["/a.tar"] = once(lambda handler: site.answer(handler, cut=HALF))
        assert get(**self.file) == DATA
        assert site.requests == [("/a.tar", None)] * 2


class TestDrive:
    def test_gdown_downloads_the_file_and_may_resume(self, monkeypatch, tmp_path):
        def fake(id, output, resume, progress, **more):
            assert (id, resume) == ("some-id", True)
            progress(len(DATA), len(DATA))
            with open(output, "wb") as file:
                file.write(DATA)

        monkeypatch.setattr(gdown, "download", fake)
        fetch(published(drive="some-id"), tmp_path / "a.tar")
        assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
        assert (tmp_path / "a.tar").read_bytes() == DATA

    def test_a_file_over_its_quota_is_reported_with_its_page(self, monkeypatch, tmp_path):
        def refuse(**more):
            raise gdown.exceptions.FileURLRetrievalError("Too many\nusers")

        monkeypatch.setattr(gdown, "download", refuse)
        with pytest.raises(UserError, match=r"Too many users.*https://drive.google.com/file/d/some-id/view"):
            fetch(published(drive="some-id"), tmp_path / "a.tar")

    def test_wrong_bytes_are_refused(self, monkeypatch, tmp_path):
        monkeypatch.setattr(gdown, "download", lambda output, **more: open(output, "wb").close())
        with pytest.raises(UserError, match="expected 300,000 bytes, got 0"):
            fetch(published(drive="some-id"), tmp_path / "a.tar")
        assert list(tmp_path.iterdir()) == []

    def test_a_download_stops_at_the_published_size(self, monkeypatch, tmp_path):
        monkeypatch.setattr(gdown, "download", lambda progress, **more: progress(len(DATA) + 1, None))
        with pytest.raises(UserError, match="expected 300,000 bytes, got more from Google Drive"):
            fetch(published(drive="some-id"), tmp_path / "a.tar")


def test_a_folder_that_cannot_be_written_is_reported(get, site, monkeypatch, tmp_path):
    def full(path, mode="r"):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "open", full, raising=False)
    with pytest.raises(UserError, match="expected a writable file, got an error: No space left"):
        get()


@pytest.mark.parametrize(
    "data, reason", [(b"", "an empty file"), (b" <HTML>", "a web page"), (b'{"train": [', "expected valid JSON")]
)
def test_a_file_without_a_hash_must_be_of_the_right_kind(tmp_path, data, reason):
    path = tmp_path / "split.json"
    path.write_bytes(data)
    with pytest.raises(OtherFile, match=reason):
        check_file(path, File("split.json"))
    path.write_bytes(b"{}")
    check_file(path, File("split.json"))
