"""`dassl fit` and `dassl predict`, from pictures to answers."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from promptlearn.classifier import PromptedClassifier
from promptlearn.cli import main

COLORS = {"red_square": (220, 30, 30), "blue_square": (30, 30, 220)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Create a folder with pictures of two classes, and the model that `dassl fit` made of them."""
    folder = tmp_path_factory.mktemp("fit")
    for name, color in COLORS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (40 + i, 40), tuple(min(255, part + 4 * i) for part in color)).save(
                folder / "photos" / name / f"{i}.png"
            )
    command = ["fit", str(folder / "photos"), "--backbone", "tiny", "--epochs", "2", "--output", str(folder / "model")]
    assert main(command) == 0
    return folder


def test_the_folder_holds_all_that_is_needed(folder):
    model = folder / "model"
    assert {path.name for path in model.iterdir()} == {"README.md", "config.json", "model.safetensors", "run"}
    classifier = PromptedClassifier.from_pretrained(model)
    assert classifier.classnames == ["blue square", "red square"]
    trained = classifier.description.trained
    assert trained["dataset"] == "ImageFolder" and trained["images"] == 4
    assert trained["prompts_sha256"] == classifier.prompts_sha256


def test_predictions_are_those_of_the_training_run(folder):
    with open(folder / "model" / "run" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [str(folder / "photos" / row["impath"]) for row in rows]
    found = PromptedClassifier.from_pretrained(folder / "model").predict(paths, batch_size=3)
    assert found.top == [row["predicted_classname"] for row in rows]
    torch.testing.assert_close(
        found.probabilities[:, 0], torch.tensor([float(row["confidence"]) for row in rows]), atol=1e-4, rtol=0
    )


def test_pictures_can_be_given_in_many_forms(folder):
    classifier = PromptedClassifier.from_pretrained(folder / "model")
    path = folder / "photos" / "red_square" / "0.png"
    with Image.open(path) as file:
        image = file.convert("RGB")
    expected = classifier.predict(path).logits
    array = np.array(image)
    for form in (str(path), [path], image, array, torch.as_tensor(array), classifier.transform(image), [image]):
        assert torch.equal(classifier.predict(form).logits, expected)
    several = classifier.predict([path, image, array], top_k=5)
    assert len(several) == 3 and several.paths == [str(path), "", ""]
    assert several.probabilities.shape == (3, 2)  # not more than there are classes
    assert classifier.predict(folder / "photos").logits.shape == (16, 2)
    assert classifier.encode_image([path]).shape[0] == 1
    assert classifier.encode_text().shape[0] == 2


@pytest.mark.parametrize("form", ["csv", "jsonl", "table"])
def test_predict_writes_tables_of_several_forms(folder, capsys, form):
    assert main(["predict", str(folder / "model"), str(folder / "photos"), "--top", "2", "--format", form]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 16 + (form == "csv")
    assert "accuracy, judged by the folders' names: " in err and "folder \\ predicted" in err
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert list(rows[0]) == ["path", "class", "probability", "class2", "probability2"]
    if form == "jsonl":
        row = json.loads(out.splitlines()[0])
        assert row["probability"] + row["probability2"] == pytest.approx(1, abs=2e-4)


def test_pictures_of_other_classes_are_marked_on_request(folder, capsys):
    classifier = PromptedClassifier.from_pretrained(folder / "model")
    results = json.loads((folder / "model" / "run" / "results.json").read_text())
    assert classifier.calibration.thresholds == results["calibration"]["thresholds"]
    assert classifier.temperature == results["calibration"]["temperature"]
    command = ["predict", str(folder / "model"), str(folder / "photos"), "--format", "jsonl", "--reject", "energy"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    threshold = results["calibration"]["thresholds"]["energy"]
    assert all(row["rejected"] == (row["score"] < threshold) for row in rows if abs(row["score"] - threshold) > 1e-3)
    assert f"rejected: {sum(row['rejected'] for row in rows)} of 16 pictures" in err
    assert main([*command, "--classes", "fox", "owl"]) == 2
    assert "--reject: expected a model with a rejection threshold for its classes" in capsys.readouterr().err


def test_unreadable_pictures_are_reported_and_counted(folder, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    good = folder / "photos" / "red_square" / "0.png"
    assert main(["predict", str(folder / "model"), str(tmp_path), str(good), "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "broken.png: expected an image" in err and "1 of 2 pictures could not be read" in err
    assert main(["predict", str(folder / "model"), str(tmp_path)]) == 2
    assert "none of which could be read" in capsys.readouterr().err


def test_other_classes_come_from_the_command_line_or_a_file(folder, tmp_path, capsys):
    picture = str(folder / "photos" / "red_square" / "0.png")
    (tmp_path / "names.txt").write_text("fox\n\nowl\n", encoding="utf-8-sig")
    for given in (["fox", "owl"], [str(tmp_path / "names.txt")]):
        assert main(["predict", str(folder / "model"), picture, "--format", "jsonl", "--classes", *given]) == 0
        assert json.loads(capsys.readouterr().out)["class"] in ("fox", "owl")


def test_notes_about_the_pictures_and_settings_reach_train(tmp_path, capfd):
    for name in ("animals/7", "plants/oak"):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "test" / name / "0.png")
    command = ["fit", str(tmp_path / "photos"), "--backbone", "tiny", "--output", str(tmp_path / "model")]
    assert main([*command, "DATASET.CLASS_LEVEL=2"]) == 2  # nothing to train on
    err = capfd.readouterr().err
    assert "Note: 1 of 2 class names say nothing to CLIP, which reads them as words: 7." in err
    assert "Note: no training images; testing only" in err
    photos = tmp_path / "photos"
    assert err.partition("error: ")[2] == (  # the last line, and the only error
        "DATASET.NAME: expected a dataset with training images, got ImageFolder, which is for testing only. Add "
        f"training images to {photos}, or train on others, and test on this one with --eval-only --model-dir.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "FOLDER/nothing"], "expected a folder of class folders or a CSV file, got nothing"),
        (["fit", "FOLDER/photos", "--method", "PRO"], "Did you mean 'RPO'?"),
        (["predict", "FOLDER/nothing", "a.jpg"], "expected the folder of a saved model"),
        (["predict", "FOLDER/model", "FOLDER/empty"], "expected pictures in this folder, got none"),
        (["predict", "FOLDER/model", "FOLDER/raw"], "got none. To read .nef files, convert them to JPEG or PNG."),
        (["predict", "FOLDER/model", "FOLDER/photos", "--classes", "fox", "fox"], "distinct class names, got 'fox'"),
        (["export", "FOLDER/model", "--output", "model.bin"], "expected a file name with .onnx or .pt2, got .bin"),
    ],
)
def test_a_mistake_gives_one_message(folder, capsys, arguments, message):
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "raw").mkdir(exist_ok=True)
    (folder / "raw" / "0.nef").touch()
    assert main([word.replace("FOLDER", str(folder)) for word in arguments]) == 2
    assert message in capsys.readouterr().err
