"""`dassl serve`: JSON over HTTP, what it refuses, and the page in a real browser."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
import requests
import torch
from PIL import Image

from promptlearn.classifier import PromptedClassifier
from promptlearn.cli import main
from promptlearn.model_files import Description
from tests.made_up_models import DESCRIPTION

serving = pytest.importorskip("promptlearn.serving", reason="need starlette and uvicorn (pip install -e '.[serve]')")

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CLASSES = DESCRIPTION["classnames"]


@pytest.fixture(scope="module")
def classifier():
    """Build an untrained RPO with a threshold that rejects every picture."""
    calibration = {"thresholds": {"max_softmax": 1.01}}
    description = msgspec.convert(DESCRIPTION | {"method": "RPO", "calibration": calibration}, Description)
    return PromptedClassifier(description, load=lambda learner: None, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, classifier):
    """Create a folder with a model, two pictures, and a text file."""
    folder = tmp_path_factory.mktemp("serve")
    classifier.save_pretrained(folder / "model")
    for name, seed in (("a.png", 0), ("b.png", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((90, 60)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def url(folder):
    command = [sys.executable, "-m", "promptlearn.cli", "serve", str(folder / "model"), "--port", "0"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().strip()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + signal.SIGTERM, "Press Ctrl-C to stop.\n")


def send(url, *files, **fields):
    """Post files, (name, content) each, and return the answer."""
    return requests.post(f"{url}/predict", files=[("pictures", file) for file in files], data=fields, timeout=60)


@pytest.fixture
def pictures(folder):
    return [(path.name, path.read_bytes()) for path in (folder / "a.png", folder / "b.png")]


def test_the_answers_are_those_of_the_classifier(url, folder, classifier, pictures):
    found = send(url, *pictures, top=2)
    assert found.status_code == 200, found.text
    expected = classifier.predict([folder / "a.png", folder / "b.png"], top_k=2)
    for picture, (name, _), names, shares in zip(
        found.json()["pictures"], pictures, expected.classnames, expected.probabilities.tolist(), strict=True
    ):
        assert picture["name"] == name
        assert [each["name"] for each in picture["classes"]] == names
        assert [each["probability"] for each in picture["classes"]] == pytest.approx(shares, abs=1e-4)
    assert [picture["rejected"] for picture in found.json()["pictures"]] == expected.rejected.tolist() == [True, True]
    assert "rejected" not in send(url, pictures[0], classes=["cat", "dog"]).json()["pictures"][0]


def test_attention_is_added_on_request(url, folder, classifier, pictures):
    found = send(url, *pictures, attention=1).json()
    maps = classifier.attention([folder / "a.png", folder / "b.png"])
    assert (found["tokens"], found["layers"]) == (maps.tokens, maps.layers)
    weights = torch.tensor([picture["attention"] for picture in found["pictures"]])
    torch.testing.assert_close(weights, maps.weights, atol=1e-4, rtol=0)
    assert "attention" not in send(url, pictures[0], attention=0).json()["pictures"][0]


def test_class_names_of_a_request_hold_for_that_request(url, pictures):
    def names(**fields):
        return {each["name"] for each in send(url, pictures[0], **fields).json()["pictures"][0]["classes"]}

    asked = [[f"thing {i}", f"animal {i}"] for i in range(8)]
    with ThreadPoolExecutor(len(asked)) as pool:  # all at once: the server computes one after the other
        assert list(pool.map(lambda classes: names(classes=classes), asked)) == [set(classes) for classes in asked]
    assert names() == set(CLASSES)
    assert requests.get(f"{url}/model", timeout=60).json()["classnames"] == CLASSES


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
PNG = io.BytesIO()
Image.new("RGB", (8, 8)).save(PNG, "PNG")
GOOD = ("good.png", PNG.getvalue())


@pytest.mark.parametrize(
    ("files", "fields", "status", "message"),
    [
        (
            [GOOD, ("notes.txt", b"text")],
            {},
            400,
            "notes.txt: expected an image, got an unreadable file",
        ),
        ([("a.eps", EPS)], {}, 400, "a.eps: expected an image, got an unreadable file"),  # Pillow starts Ghostscript
        ([], {"pictures": "/etc/hostname"}, 400, "pictures: expected files in multipart/form-data"),
        ([GOOD] * (serving.MAX_PICTURES + 1), {}, 400, str(serving.MAX_PICTURES)),
        ([GOOD], {"classes": ["fox", "fox"]}, 400, "classnames: expected distinct class names, got 'fox' twice"),
        ([GOOD], {"classes": ["fox " * 99]}, 400, "expected at most 77 positions for its text"),
        ([GOOD], {"top": "many"}, 400, "top: expected an integer of at least 1, got 'many'"),
        ([("large.png", bytes(serving.MAX_MEGABYTES * 10**6))], {}, 413, "expected at most 32 MB, got more"),
    ],
)
def test_what_cannot_be_answered_is_refused(url, files, fields, status, message):
    found = send(url, *files, **fields)
    assert found.status_code == status and message in found.json()["error"]
    assert send(url, GOOD).status_code == 200  # the server is unharmed


def test_a_request_of_unknown_length_is_limited_too(url):
    start = b'--x\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n\r\n'
    pieces = (piece for piece in (start, *[bytes(2**20)] * 40, b"\r\n--x--\r\n"))
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        status = requests.post(f"{url}/predict", data=pieces, headers=headers, timeout=60).status_code
    except requests.ConnectionError:
        status = 413  # it may hang up on what is still to come
    assert status == 413


@pytest.mark.parametrize("path", ["/../../etc/hostname", "/%2e%2e/setup.py", "/serving.py", "/a.png", "/static/"])
def test_no_file_is_served(url, path):
    with requests.Session() as session:
        request = session.prepare_request(requests.Request("GET", url))
        request.url = url + path  # not normalized
        assert session.send(request, timeout=60).status_code == 404


def test_other_host_names_are_refused(url):
    found = requests.get(f"{url}/model", headers={"Host": "evil.example"}, timeout=60)
    assert (found.status_code, found.text) == (400, "Invalid host header")
    assert "default-src 'none'" in requests.get(url, timeout=60).headers["Content-Security-Policy"]


def test_an_address_in_use_gives_one_message(url, folder, capsys):
    assert main(["serve", str(folder / "model"), "--port", url.rpartition(":")[2]]) == 2
    assert "--host, --port: expected a free address of this machine" in capsys.readouterr().err


def test_the_help_fits_on_one_screen(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    assert len(capsys.readouterr().out.splitlines()) <= 30


# ---- in a browser


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("need a browser (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="need playwright (pip install playwright)")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, url):
    """Return opened(width=1200, **context): the page in a window; its errors and requests are recorded on it."""

    def open_page(width=1200, prepare=lambda window: None, **context):
        window = browser.new_page(viewport={"width": width, "height": 900}, **context)
        window.errors, window.requests = [], []
        window.on("console", lambda message: window.errors.append(message.text))
        window.on("pageerror", lambda error: window.errors.append(str(error)))
        window.on("request", lambda request: window.requests.append(request.url))
        prepare(window)
        window.goto(url)
        return window

    return open_page


def shares(window, name):
    """Return what the page shows for a picture: {class: probability}."""
    card = window.locator("#pictures > li", has=window.get_by_role("heading", name=name))
    card.locator("ol li").first.wait_for()
    return {
        row.locator("span").first.inner_text(): row.locator("span").last.inner_text()
        for row in card.locator("ol li").all()
    }


def test_the_page_shows_probabilities_and_where_the_prompts_look(opened, url, folder, classifier):
    window = opened()
    window.set_input_files("#files", [folder / "a.png", folder / "b.png"])
    expected = classifier.predict(folder / "b.png", top_k=3)
    pairs = zip(expected.classnames[0], expected.probabilities[0].tolist(), strict=True)
    assert shares(window, "b.png") == {name: f"{100 * round(share, 4):.1f}%" for name, share in pairs}
    assert window.get_by_text("probably none of these classes").count() == 2
    maps = classifier.attention(folder / "b.png")
    assert window.locator("#token option").all_inner_texts() == ["no overlay", *maps.tokens]
    assert window.locator("#token").evaluate("e => e.value") == maps.tokens[1]
    assert window.locator("canvas").first.evaluate("e => [e.width, e.hidden]") == [maps.weights.shape[-1], False]
    window.select_option("#token", "no overlay")
    assert window.locator("canvas").first.is_hidden() and window.locator("#layer").is_disabled()
    assert window.errors == []
    assert {address for address in window.requests if not address.startswith(("blob:", "data:"))} == {
        f"{url}/",
        f"{url}/model",
        f"{url}/predict",
    }


def test_edited_class_names_are_used_at_once(opened, folder):
    window = opened()
    window.set_input_files("#files", folder / "a.png")
    assert set(shares(window, "a.png")) == set(CLASSES)
    window.fill("#names", "a <b>bold</b> cat\n\n dog \n")
    window.get_by_role("button", name="Use these classes").click()
    window.locator("#pictures ol li", has_text="dog").wait_for()
    assert set(shares(window, "a.png")) == {"a <b>bold</b> cat", "dog"}
    window.get_by_role("button", name="Reset").click()
    window.locator("#pictures ol li", has_text="owl").wait_for()
    window.fill("#names", "cat\ncat")
    window.get_by_role("button", name="Use these classes").click()
    window.locator("#pictures .error").wait_for()
    assert window.locator("#pictures .error").inner_text().startswith("classnames: expected distinct class names")


def test_dropped_files_are_classified_and_others_get_a_message(opened, folder):
    window = opened()
    data = window.evaluate_handle(
        """async () => {
            const data = new DataTransfer(), canvas = document.createElement("canvas");
            const picture = await new Promise((done) => canvas.toBlob(done));
            data.items.add(new File([picture], "drawn.png"));
            data.items.add(new File(["text"], "notes.txt"));
            return data;
        }"""
    )
    window.dispatch_event("#drop", "drop", {"dataTransfer": data})
    assert set(shares(window, "drawn.png")) == set(CLASSES)
    window.locator("#pictures .error").wait_for()
    assert window.locator("#pictures .error").inner_text().startswith("notes.txt: expected an image")


def test_class_names_of_a_bound_method_cannot_be_edited(opened):
    facts = {"method": "VPT", "backbone": "tiny", "classnames": CLASSES, "classes_are_fixed": True}
    facts["limits"] = {"megabytes": 32}
    window = opened(prepare=lambda window: window.route("**/model", lambda r: r.fulfill(body=json.dumps(facts))))
    window.locator("#fixed").wait_for()
    assert window.locator("#names").is_disabled()
    assert window.get_by_role("button", name="Use these classes").is_disabled()


@pytest.mark.parametrize("width", [1200, 420])
def test_nothing_overflows_the_window(opened, folder, width):
    window = opened(width)
    window.set_input_files("#files", folder / "a.png")
    assert shares(window, "a.png")
    assert window.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_follows_the_color_scheme(opened):
    color = "getComputedStyle(document.documentElement).backgroundColor"
    assert opened(color_scheme="light").evaluate(color) == "rgb(255, 255, 255)"
    assert opened(color_scheme="dark").evaluate(color) == "rgb(22, 25, 29)"
