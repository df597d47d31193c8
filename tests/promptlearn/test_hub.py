"""Models go to the Hub and come back, through a stand-in for its HTTP API."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import save_file
from small_clip import make_small_clip, write_transformers

from basics import UserError
from clip import load_clip
from promptlearn import hub
from promptlearn.classifier import PromptedClassifier
from promptlearn.model_files import CONFIG, TENSORS, read_description
from tests.made_up_models import DESCRIPTION

ROOT = Path(__file__).parents[2]
SHA = "0123456789abcdef0123456789abcdef01234567"
TRAINED = {"dataset": "Digits", "shots": 16, "seed": 1, "accuracy": 82.5, "images": 1397, "draw_hash": "f" * 64}
TRAINED |= {"trained_parameters": 1234, "per_class": {"red | fox": 50.0, "gray_wolf": 75.0}}


class StandIn:
    """What the Hub answers for models: creating a repository, committing regular files, listing, and downloading."""

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}  # repository -> path -> content
        self.refused = ""  # part of the name of repositories for which every request gets status 403
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, content=b"", **headers):
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": len(body), **headers}.items():
                    self.send_header(name.replace("_", "-"), str(value))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if stand_in.refused and stand_in.refused in self.path + body.decode(errors="replace"):
                    return self.answer(403, {"error": "Forbidden"})
                if self.path == "/api/repos/create":
                    wanted = json.loads(body)
                    name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                    stand_in.files.setdefault(name, {})
                    return self.answer(200, {"url": f"{stand_in.url}/{name}", "name": name, "id": "1"})
                if self.path == "/api/validate-yaml":
                    return self.answer(200, {"errors": [], "warnings": []})
                name = re.match(r"/api/models/([^/]+/[^/]+)/", self.path)[1]
                if "/preupload/" in self.path:
                    files = [
                        {**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
                    ]
                    return self.answer(200, {"files": files})
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        value = line["value"]
                        assert value["encoding"] == "base64"
                        stand_in.files[name][value["path"]] = base64.b64decode(value["content"])
                url = f"{stand_in.url}/{name}/commit/{SHA}"
                return self.answer(200, {"commitUrl": url, "commitOid": SHA, "hookOutput": ""})

            def do_GET(self):
                if listing := re.match(r"/api/models/([^/]+/[^/?]+)", self.path):
                    name = listing[1]
                    refused = bool(stand_in.refused) and stand_in.refused in name
                    if name not in stand_in.files or refused:
                        status, code = (403, "GatedRepo") if refused else (404, "RepoNotFound")
                        return self.answer(status, {"error": "no"}, X_Error_Code=code, X_Error_Message="no such model")
                    files = stand_in.files[name]
                    if "/tree/" in self.path:
                        listed = [
                            {"type": "file", "path": path, "size": len(data), "oid": f"{i:040x}"}
                            for i, (path, data) in enumerate(files.items())
                        ]
                        return self.answer(200, listed)
                    siblings = [{"rfilename": path} for path in files]
                    return self.answer(200, {"id": name, "sha": SHA, "siblings": siblings, "private": False})
                wanted = re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
                data = stand_in.files.get(wanted[1], {}).get(wanted[2]) if wanted else None
                if data is None:
                    return self.answer(404, {"error": "no such file"}, X_Error_Code="EntryNotFound")
                return self.answer(200, data, ETag=f'"{abs(hash(data))}"', X_Repo_Commit=SHA)

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


PROGRAM = """
import json, shutil, sys, torch
from basics import UserError
from promptlearn import hub
from promptlearn.classifier import PromptedClassifier

def message(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except UserError as error:
        return str(error)

saved = PromptedClassifier.from_pretrained(sys.argv[1], device="cpu")
saved.push_to_hub("me/fox", token="hf_x")
with_backbone = PromptedClassifier.from_pretrained(sys.argv[2], device="cpu")
with_backbone.push_to_hub("me/whole", token="hf_x", include_backbone=True)
shutil.rmtree(sys.argv[3])
whole = PromptedClassifier.from_pretrained("me/whole", device="cpu")
small = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
back = PromptedClassifier.from_pretrained("me/fox", device="cpu")
images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
print(json.dumps({
    "equal": torch.equal(back.logits(images), saved.logits(images)) and back.classnames == saved.classnames,
    "whole": torch.equal(whole.logits(small), with_backbone.logits(small)),
    "files": sorted(path.name for path in hub.download("me/fox").iterdir()),
    "nothing": message(PromptedClassifier.from_pretrained, "me/nothing"),
    "gated": message(PromptedClassifier.from_pretrained, "me/gated"),
    "forbidden": message(saved.push_to_hub, "me/gated", token="hf_x"),
}))
"""


@pytest.fixture
def stand_in():
    site = StandIn()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def classifier(tmp_path):
    """Save a zero-shot model with a made-up training."""
    (tmp_path / "saved").mkdir()
    described = DESCRIPTION | {"classnames": ["red | fox", "gray_wolf"], "trained": TRAINED}
    (tmp_path / "saved" / CONFIG).write_text(json.dumps(described))
    save_file({}, tmp_path / "saved" / TENSORS)
    return PromptedClassifier.from_pretrained(tmp_path / "saved", device="cpu")


def test_a_model_goes_to_the_hub_and_comes_back(stand_in, classifier, tmp_path):
    stand_in.files["me/gated"], stand_in.refused = {}, "gated"
    environment = os.environ | {"HF_ENDPOINT": stand_in.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    backbone = write_transformers(tmp_path / "clip", make_small_clip().state_dict(), make_small_clip().config)
    digest = load_clip(str(backbone)).weights_sha256
    settings = DESCRIPTION["settings"] | {"MODEL.BACKBONE.NAME": str(backbone), "INPUT.SIZE": [24, 24]}
    (tmp_path / "other").mkdir()
    described = DESCRIPTION | {"weights_sha256": digest, "settings": settings}
    (tmp_path / "other" / CONFIG).write_text(json.dumps(described))
    save_file({}, tmp_path / "other" / TENSORS)
    program = [sys.executable, "-c", PROGRAM, tmp_path / "saved", tmp_path / "other", backbone]
    done = subprocess.run(program, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(stand_in.files["me/fox"]) == {"README.md", CONFIG, TENSORS}
    assert found["equal"] and found["files"] == [CONFIG, TENSORS]  # only what a model consists of
    assert set(stand_in.files["me/whole"]) >= {"backbone/config.json", "backbone/model.safetensors"}
    assert found["whole"]
    assert found["nothing"].startswith("me/nothing: expected a folder, or a model on the Hub that can be downloaded")
    assert found["gated"].startswith("me/gated: expected a folder, or a model on the Hub that can be downloaded")
    assert found["forbidden"].startswith("me/gated: expected a repository on the Hub that you may write to")


def test_without_a_network_the_message_says_what_was_expected():
    with pytest.raises(UserError, match="me/fox: expected a folder, or a model on the Hub that can be downloaded"):
        PromptedClassifier.from_pretrained("me/fox")


@pytest.mark.parametrize(
    ("name", "expected"), [("me/fox", True), ("fox", False), ("a/b/c", False), ("./fox", False), ("../fox", False)]
)
def test_only_owner_and_name_may_be_on_the_hub(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.is_hub_name(name) == expected


def test_an_existing_folder_is_not_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "fox").mkdir(parents=True)
    assert not hub.is_hub_name("models/fox")


def test_the_card_tells_what_was_trained_and_how_good_it_is(classifier, tmp_path):
    classifier.save_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: promptlearn-clip\n")
    for text in (
        "Digits, 16 images per class, seed 1",
        "82.5% of 1397 test images",
        "1,234",
        "MIT (part of this package)",
    ):
        assert text in card
    assert "| red \\| fox | 50.0 |" in card and "| gray\\_wolf | 75.0 |" in card
    assert read_description(tmp_path / "model" / CONFIG).trained["draw_hash"] == "f" * 64


@pytest.mark.parametrize(
    ("backbone", "base_model"), [("hf-hub:me/clip@v1", "me/clip"), ("ViT-B/16", "openai/clip-vit-base-patch16")]
)
def test_the_card_names_the_base_model_on_the_hub(classifier, backbone, base_model):
    classifier.description.settings["MODEL.BACKBONE.NAME"] = backbone
    assert f"\nbase_model: {base_model}\n" in hub.model_card(classifier.description)


@pytest.mark.parametrize(("method", "paper"), hub.PAPERS.items())
def test_the_card_names_the_paper_of_the_method(classifier, method, paper):
    classifier.description.method = method
    assert f"https://arxiv.org/abs/{paper}" in hub.model_card(classifier.description)
