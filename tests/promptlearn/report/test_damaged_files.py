"""Files of runs that are damaged, or made to do harm: they are named and left out, and everything else is shown."""

import json
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from promptlearn.cli.main import main
from promptlearn.experiments import PROTOCOLS, discover, summarize, table
from promptlearn.experiments.run_files import damaged, read_predictions
from promptlearn.report import Comparison
from promptlearn.report.explanations import read_explanation
from promptlearn.report.predictions import examples
from promptlearn.report.runs import Run
from tests.made_up_runs import MadeUpRuns

BASE2NEW = PROTOCOLS["base2new"]
RPO = "base2new/train_base/digits/shots_16/RPO/tiny"


@pytest.fixture
def output(tmp_path):
    MadeUpRuns(tmp_path / "output").base2new("digits", seeds=(1, 2))
    damaged.clear()
    return tmp_path / "output"


def changed(text, **changes):
    return json.dumps(json.loads(text) | changes)


def accuracy(value):
    return lambda text: text.replace('"accuracy": ', f'"accuracy": {value}, "before": ', 1)


JSON = {  # name -> the new text of results.json
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "no JSON": lambda text: "\0\1\2",
    "a list": lambda text: "[]",
    "brackets": lambda text: "[" * 200_000,
    "an accuracy of NaN": accuracy("NaN"),
    "an infinite accuracy": accuracy("1e999"),
    "an accuracy of 900": accuracy("900"),
    "a negative accuracy": accuracy("-1"),
    "a true accuracy": accuracy("true"),
    "a text as accuracy": accuracy('"90"'),
    "format 99": lambda text: changed(text, format=99),
    "no format": lambda text: text.replace('"format"', '"form"'),
    "metrics of text": lambda text: changed(text, metrics="good"),
    "a class without accuracy": lambda text: changed(text, metrics={"accuracy": 50, "per_class": {"cat": {"n": 3}}}),
    "a lone surrogate": lambda text: text.replace('"tiny"', '"\\ud800"'),
    "a huge number": lambda text: changed(text, trained_parameters=10**400),
    "seconds of text": lambda text: changed(text, seconds={"train": "long"}),
    "a config of numbers": lambda text: changed(text, config=[1]),
    "versions of numbers": lambda text: changed(text, versions={"torch": 2}),
    "a digest of numbers": lambda text: changed(text, prompts_sha256=7),
}


@pytest.mark.parametrize("name", JSON)
def test_a_damaged_result_is_named_and_the_others_are_tabulated(output, capsys, name):
    path = output / RPO / "seed1" / "results.json"
    path.write_text(JSON[name](path.read_text()), encoding="utf-8", errors="surrogatepass")
    assert main(["results", str(output)]) == 1
    shown = capsys.readouterr()
    assert (
        shown.err.count(f"{path}: expected a file of a run, got a damaged one: ") == 1 and "Traceback" not in shown.err
    )
    assert "(1 of 2)" in shown.out and "CoOp" in shown.out


def test_a_pipe_in_place_of_a_file_does_not_hang(output, capsys):
    for name in ("results.json", "predictions.csv", "status.json"):
        path = output / RPO / "seed1" / name
        path.unlink()
        os.mkfifo(path)
    assert main(["results", str(output)]) == 1
    assert "it is not a regular file" in capsys.readouterr().err
    run = Run(None, "RPO", {})
    assert read_predictions(output / RPO / "seed1" / "predictions.csv") == [] and not run.__dict__.get("predictions")


CSV = {  # name -> the new text of predictions.csv
    "cut off": lambda text: text[:-30],
    "no header": lambda text: text.partition("\n")[2],
    "a missing column": lambda text: text.replace("confidence", "conf"),
    "a row with more cells": lambda text: text + "a,1,1,0.5,x,y,z,z\n",
    "a confidence of text": lambda text: text.replace("0.5,", "high,", 1),
    "a confidence of NaN": lambda text: text.replace("0.5,", "nan,", 1),
    "a confidence of 7": lambda text: text.replace("0.5,", "7,", 1),
    "a label of text": lambda text: text.replace(".png,0", ".png,zero", 1),
    "a zero byte": lambda text: text + "\0",
    "a huge cell": lambda text: text.replace("0.png", "x" * 200_000, 1),
    "an open quote": lambda text: text + '"',
}


@pytest.mark.parametrize("name", CSV)
def test_damaged_predictions_are_named_and_left_out(output, capsys, name):
    path = output / RPO / "seed1" / "predictions.csv"
    path.write_text(CSV[name](path.read_text()), encoding="utf-8")
    assert read_predictions(path) == []
    assert capsys.readouterr().err.startswith(f"{path}: expected a file of a run, got a damaged one: ")


def zipped(path, **arrays):
    np.savez_compressed(path, **arrays)


FEATURES = {  # name -> what rewrites explain.npz from its arrays
    "8 GiB of zeros": lambda path, arrays: zip_of_zeros(path),
    "another array": lambda path, arrays: zipped(path, **arrays, more=np.zeros(3)),
    "a missing array": lambda path, arrays: zipped(path, **{k: v for k, v in arrays.items() if k != "after"}),
    "objects": lambda path, arrays: np.savez(path, **(arrays | {"classname": np.array([{}] * 20)})),
    "another length": lambda path, arrays: zipped(path, **(arrays | {"after": arrays["after"][:3]})),
    "NaN": lambda path, arrays: zipped(path, **(arrays | {"after": arrays["after"] * np.nan})),
    "integers": lambda path, arrays: zipped(path, **(arrays | {"before": arrays["before"].astype(int)})),
    "maps of more tokens": lambda path, arrays: zipped(path, **(arrays | {"tokens": arrays["tokens"][:1]})),
    "maps of no image": lambda path, arrays: zipped(
        path, **(arrays | {name: arrays[name][:0] for name in ("attention", "pictures", "truth", "predicted")})
    ),
    "maps of NaN": lambda path, arrays: zipped(path, **(arrays | {"attention": arrays["attention"] * np.nan})),
    "a missing map": lambda path, arrays: zipped(path, **{k: v for k, v in arrays.items() if k != "layers"}),
    "no archive": lambda path, arrays: path.write_bytes(b"PK no"),
}


def zip_of_zeros(path):
    """Write a small file whose one entry claims to be huge."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("more.npy", "w") as entry:
        for _ in range(16):
            entry.write(bytes(2**20))


@pytest.mark.parametrize("name", FEATURES)
def test_damaged_features_are_named_and_left_out(output, capsys, name):
    run = next(run for run in Comparison(BASE2NEW, output).runs if run.job.folder == output / RPO / "seed1")
    path = run.job.folder / "explain" / "explain.npz"
    assert read_explanation(run) is not None
    with np.load(path) as arrays:
        arrays = dict(arrays)
    FEATURES[name](path, arrays)
    assert read_explanation(run) is None
    assert f"{path}: expected a file of a run, got a damaged one: " in capsys.readouterr().err


EXPLANATIONS = {
    "a tower of text": lambda text: changed(text, towers={"text": "many layers"}),
    "another tower": lambda text: changed(text, towers={"sound": {"layers": 1, "scenes": []}}),
    "a huge segment": lambda text: text.replace('"tokens": 26', '"tokens": 1000000000'),
    "words of numbers": lambda text: changed(text, words=[{"vector": "ctx", "norm": 1, "words": [[1, 2]]}]),
    "a norm of NaN": lambda text: text.replace('"norm": 0.5', '"norm": NaN'),
    "brackets": lambda text: "[" * 200_000,
}


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_a_damaged_explanation_is_named_and_left_out(output, capsys, name):
    run = next(run for run in Comparison(BASE2NEW, output).runs if run.job.folder == output / RPO / "seed1")
    path = run.job.folder / "explain" / "explain.json"
    path.write_text(EXPLANATIONS[name](path.read_text()))
    assert read_explanation(run) is None
    assert f"{path}: expected a file of a run, got a damaged one: " in capsys.readouterr().err


def test_the_report_leaves_out_what_is_damaged_and_shows_the_rest(output, capsys):
    (output / RPO / "seed2" / "results.json").write_text("{")
    (output / RPO / "seed1" / "explain" / "explain.json").write_text("{")
    (output / RPO.replace("RPO", "CoOp") / "seed1" / "predictions.csv").write_text("impath\na\n")
    assert main(["report", str(output), "--no-explain"]) == 1
    shown = capsys.readouterr()
    assert shown.err.count("got a damaged one") == 3 and "Traceback" not in shown.err
    page = (output / "base2new" / "report.html").read_text()
    assert "Confusion: digits, base" in page and "VPT" in page


def test_zero_shot_clip_with_several_seeds_can_be_compared(output, capsys):
    runs = MadeUpRuns.__new__(MadeUpRuns)
    runs.output, runs.data = output, output / "data"
    for subsample, stage in (("base", "train_base"), ("new", "test_new")):
        runs.run(f"base2new/{stage}", "digits", "ZeroshotCLIP", 2, subsample)
    assert main(["results", str(output), "--statistics"]) == 0
    assert "Statistics of new" in capsys.readouterr().out


def test_no_picture_from_outside_the_dataset_folder_is_shown(output, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "secret.png")
    (output / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    run = next(run for run in Comparison(BASE2NEW, output).runs if run.job.folder == output / RPO / "seed1")
    path = run.job.folder / "predictions.csv"
    honest = path.read_text()
    assert examples(run, None)
    for secret in ("../../secret.png", str(tmp_path / "secret.png"), "link.png"):
        path.write_text(honest.split("\n")[0] + f"\n{secret},0,0,0.9,cat,cat\n")
        assert examples(Run(run.job, run.method, run.result), None) == {}


def test_pictures_of_another_machine_are_shown_only_on_request(output, capsys):
    for path in output.rglob("status.json"):
        path.write_text('{"state": "done", "host": "another"}')
    assert main(["report", str(output), "--no-explain"]) == 0
    page = output / "base2new" / "report.html"
    assert "Correct and wrong predictions" not in page.read_text()
    assert main(["report", str(output), "--no-explain", "--foreign-images"]) == 0
    assert "Correct and wrong predictions" in page.read_text()


def test_latex_specials_in_names_are_escaped(tmp_path):
    MadeUpRuns(tmp_path / "output").base2new("50%_cats&dogs#1", seeds=(1,))
    latex = table(BASE2NEW, summarize(BASE2NEW, discover(BASE2NEW, tmp_path / "output")), "latex")
    assert r"50\%\_cats\&dogs\#1" in latex
