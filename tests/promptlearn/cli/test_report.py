import json
import shutil

import pytest

from promptlearn.cli import main
from tests.fake_checkout import FakeCheckout
from tests.made_up_runs import MadeUpRuns

# Writes down that it was called, and leaves the explanation of another run.
EXPLAINING = """
import pathlib, shutil, sys

here, arguments = pathlib.Path(__file__).parent, sys.argv[1:]
value = lambda flag: arguments[arguments.index(flag) + 1]
with open(here / "explained.txt", "a") as file:
    file.write(value("--config-file") + "\\n")
assert "--eval-only" in arguments and "--explain" in arguments
shutil.copytree(here / "explained", value("--output-dir"), dirs_exist_ok=True)
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Create a checkout whose output/ has a training and a test of RPO, and zero-shot CLIP."""
    fake = FakeCheckout(tmp_path)
    monkeypatch.chdir(fake.root)
    runs = MadeUpRuns(fake.output)
    runs.base2new(seeds=(1,))
    for trainer in ("CoOp", "VPT"):
        for path in (fake.output / "base2new").glob(f"*/digits/shots_16/{trainer}"):
            shutil.rmtree(path)
    [explained] = fake.output.rglob("explain")
    shutil.move(explained, fake.root / "explained")
    (fake.root / "train.py").write_text(EXPLAINING)
    return fake


def test_the_page_is_in_its_protocols_folder_and_its_path_printed(checkout, capfd):
    assert main(["report", "output", "--no-explain"]) == 0
    out, err = capfd.readouterr()
    page = checkout.output / "base2new" / "report.html"
    assert out.strip() == str(page) and page.read_text().startswith("<!DOCTYPE html>")
    assert "base2new: 4 runs, 0 missing" in err
    assert not (checkout.root / "explained.txt").exists()


def test_models_that_are_not_explained_yet_are_explained_once(checkout, capfd):
    assert main(["report", "output"]) == 0
    train_base = checkout.output / "base2new" / "train_base" / "digits" / "shots_16"
    calls = (checkout.root / "explained.txt").read_text().splitlines()
    assert calls == [str(train_base / name / "tiny" / "seed1" / "config.yaml") for name in ("ZeroshotCLIP", "RPO")]
    assert "Attention pattern: digits, RPO" in (checkout.output / "base2new" / "report.html").read_text()
    assert main(["report", "output"]) == 0
    assert (checkout.root / "explained.txt").read_text().splitlines() == calls


def test_a_model_that_cannot_be_explained_is_named_and_the_page_is_written(checkout, capfd):
    (checkout.root / "train.py").write_text("raise SystemExit('error: planted failure')")
    assert main(["report", "output"]) == 1
    page = (checkout.output / "base2new" / "report.html").read_text()
    message = "Not explained: RPO on digits, 16 shots, seed 1, base: error: planted failure"
    assert message in page and message in capfd.readouterr().err and "Attention pattern: digits, RPO" not in page


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["output", "--look-into", "digts"], "unknown dataset 'digts'. Did you mean 'digits'?"),
        (["nowhere"], "nowhere: expected a folder with runs, got no folder"),
        (["configs"], "configs: expected a folder with runs, got one without results.json"),
    ],
)
def test_a_mistake_gives_one_message_and_status_2(checkout, capfd, arguments, message):
    assert main(["report", *arguments, "--no-explain"]) == 2
    assert message in capfd.readouterr().err


def test_unfinished_runs_alone_give_no_report(checkout, capfd):
    for path in checkout.output.rglob("results.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    assert main(["report", "output", "--no-explain"]) == 2
    assert "expected a finished run, got none" in capfd.readouterr().err
