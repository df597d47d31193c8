"""Datasets of the user's own in protocols: under which name, from where, and what is refused before the first run."""

import json

import pytest
from PIL import Image

from basics import UserError
from promptlearn.experiments import PROTOCOLS, Checkout, RunRequest, plan, refuse_other_settings
from promptlearn.experiments.requested_datasets import choose_dataset
from tests.fake_checkout import FakeCheckout

CLASSES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def pictures(tmp_path):
    """Return make(folder, classes): a folder of class folders with two pictures each."""

    def make(name, classes=CLASSES):
        for each in classes:
            (tmp_path / name / each).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (8, 8), (9 * number, len(name), 7)).save(tmp_path / name / each / f"{number}.png")
        return tmp_path / name

    return make


@pytest.fixture
def own(pictures, tmp_path):
    """Make a folder, a CSV file, and a yaml file of pictures; the yaml file reads another folder."""
    for name in ("photos", "birds", "others"):
        pictures(name)
    rows = [f"birds/{name}/{number}.png,{name}" for name in CLASSES for number in range(2)]
    (tmp_path / "birds.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "my.yaml").write_text(f"DATASET:\n  NAME: ImageFolder\n  ROOT: {tmp_path / 'others'}\n")
    return tmp_path


@pytest.fixture
def checkout():
    return Checkout()


def commands(checkout, output, *datasets, protocol="base2new", data=None, **request):
    request = RunRequest(trainers=["RPO"], datasets=list(datasets), seeds=[1], config="tiny", **request)
    jobs = plan(PROTOCOLS[protocol], checkout, output, data, request)
    return [job.arguments(checkout, data) for job in jobs]


def value(command, key):
    return command[command.index(key) + 1] if key in command else None


def test_folders_tables_and_yaml_files_are_planned_under_their_names(own, checkout, tmp_path):
    words = [f"{own}/photos/", f"{own}/birds.csv", f"{own}/my.yaml", "digits", f"second={own}/birds", "Braille"]
    lines = commands(checkout, tmp_path / "output", *words)
    trained = [line for line in lines if "/train_base/" in value(line, "--output-dir") and "RPO" in line]
    found = {value(line, "--output-dir").split("/train_base/")[1].split("/")[0]: line for line in trained}
    assert list(found) == ["photos", "birds", "my", "digits", "second", "braille"]
    roots = {name: value(line, "--root") for name, line in found.items()}
    expected = {"photos": "photos", "birds": "birds.csv", "my": "others", "second": "birds"}
    assert roots == {name: str(own / path) for name, path in expected.items()} | {"digits": None, "braille": None}
    assert value(found["my"], "--dataset-config-file") == str(own / "my.yaml")
    for name in ("photos", "birds", "second"):
        assert value(found[name], "--dataset-config-file") == "configs/datasets/image_folder.yaml"


def test_paths_are_relative_to_the_current_folder(own, monkeypatch, checkout, tmp_path):
    monkeypatch.chdir(own)
    (own / "my.yaml").write_text("DATASET:\n  NAME: ImageFolder\n  ROOT: others\n")
    lines = commands(checkout, tmp_path / "output", "photos", "my.yaml")
    assert {value(line, "--root") for line in lines} == {str(own / "photos"), str(own / "others")}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_takes_them(own, checkout, tmp_path, protocol):
    transfer = {"source": f"source_set={own}/others"} if PROTOCOLS[protocol].transfer else {}
    lines = commands(checkout, tmp_path / "output", f"{own}/photos", f"{own}/birds.csv", protocol=protocol, **transfer)
    names = {"source_set"} if transfer else {"photos", "birds"}
    assert {value(line, "--output-dir").split("/shots_")[0].rpartition("/")[2] for line in lines} == names
    if transfer:
        tested = [line for line in lines if f"/{protocol}/test_birds/" in value(line, "--output-dir")]
        assert tested and {value(line, "--root") for line in tested} == {str(own / "birds.csv")}


def test_a_named_dataset_may_have_another_name(checkout, tmp_path):
    (line, *_) = commands(checkout, tmp_path, "mine=digits")
    assert "/train_base/mine/" in value(line, "--output-dir")
    assert value(line, "--dataset-config-file") == "configs/datasets/digits.yaml"


def test_own_pictures_use_the_released_configs_unless_one_is_requested(own, tmp_path):
    fake = FakeCheckout(tmp_path)
    request = RunRequest(trainers=["RPO"], datasets=[f"{own}/photos", "digits"], seeds=[1])
    jobs = plan(PROTOCOLS["few_shot"], Checkout(), fake.output, None, request)
    assert {job.row.config for job in jobs if job.row.trainer == "RPO"} == {"main_K24"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{own}/photos", "{own}/deep/photos"), "expected a name of its own for each dataset, got 'photos' for"),
        (("{own}/birds", "{own}/birds.csv"), "Give one of them another: NAME=.*birds.csv"),
        (("Mine={own}/birds", "mine={own}/photos"), "expected a name of its own for each dataset, got 'mine'"),
        (("{own}/digits",), "no file of configs/datasets/ and no registered dataset has, got 'digits'. Give another"),
        (("Digits={own}/photos",), "no registered dataset has, got 'Digits'"),
        (("average={own}/photos",), "and none of average, .* got 'average'"),
        (("a#b={own}/photos",), "of at most 60 letters, digits, spaces, and . _ . -.* got 'a#b'"),
        ((".={own}/photos",), "got '.'"),
        (("",), "--datasets: expected a name or a path, got ''"),
        (("photos=",), "--datasets: expected a name or a path, got 'photos='"),
        (("{own}/nowhere",), "expected a folder of class folders, .* got .*nowhere, which does not exist"),
        (("pets=nowhere",), "got nowhere, which does not exist"),
        (("photo.csv",), "got photo.csv, which does not exist"),
        (("digts",), "unknown dataset 'digts'. Did you mean 'digits'"),
        (("{own}/lost.yaml",), "lost.yaml: DATASET.ROOT: expected a folder or a file, got /nowhere"),
        (("{own}/empty.yaml",), "empty.yaml: expected DATASET with NAME below it, got neither"),
        (("{own}/slip.yaml",), "slip.yaml: unknown key DATASET.PRMOPT. Did you mean DATASET.PROMPT"),
        (("{own}/pets.yaml",), "--data: expected the folder with the images of pets, got nothing"),
        (("{own}/empty",), "empty: expected class folders, got 0 files"),
        (("{own}/three",), r"three: expected at least 4 classes, half of them base classes, got 3 \(ant, bee, cat\)"),
    ],
)
def test_what_cannot_be_used_gets_one_message_before_the_first_run(own, pictures, checkout, tmp_path, words, message):
    pictures("deep/photos")
    pictures("digits")
    pictures("three", CLASSES[:3])
    (own / "empty").mkdir()
    (own / "lost.yaml").write_text("DATASET:\n  NAME: ImageFolder\n  ROOT: /nowhere\n")
    (own / "empty.yaml").write_text("")
    (own / "slip.yaml").write_text("DATASET:\n  NAME: ImageFolder\n  PRMOPT: a {}\n")
    (own / "pets.yaml").write_text("DATASET:\n  NAME: OxfordPets\n")
    with pytest.raises(UserError, match=message):
        commands(checkout, tmp_path / "output", *(word.format(own=own) for word in words))
    assert not (tmp_path / "output").exists()


def test_three_classes_are_enough_where_all_are_tested_and_one_is_not(pictures, checkout, tmp_path):
    assert commands(checkout, tmp_path / "output", str(pictures("three", CLASSES[:3])), protocol="few_shot")
    with pytest.raises(UserError, match="one: expected at least 2 classes, got 1"):
        commands(checkout, tmp_path / "output", str(pictures("one", CLASSES[:1])), protocol="few_shot")


def test_the_output_is_never_inside_the_pictures(own, checkout):
    for words, data in (([f"{own}/photos"], None), (["image_folder"], own / "photos")):
        with pytest.raises(UserError, match="--output: expected a folder outside of the pictures in .*photos"):
            commands(checkout, own / "photos" / "output", *words, data=data)
    assert sorted(path.name for path in (own / "photos").iterdir()) == list(CLASSES)


def test_a_link_keeps_its_name(own, checkout):
    (own / "linked").symlink_to(own / "photos")
    dataset = choose_dataset(f"{own}/linked/", checkout)
    assert (dataset.name, dataset.root) == ("linked", own / "linked")


def test_the_same_dataset_counts_once(own, checkout, tmp_path):
    once = commands(checkout, tmp_path / "output", f"{own}/photos")
    assert commands(checkout, tmp_path / "output", f"{own}/photos", f"{own}/photos/") == once


def test_a_yaml_file_of_the_configs_is_the_dataset_of_that_name(checkout):
    path = checkout.config("datasets/digits.yaml")
    assert choose_dataset(str(path), checkout) == choose_dataset("digits", checkout)


def test_notes_on_the_pictures_are_shown_before_the_runs(own, checkout, tmp_path, capsys):
    commands(checkout, tmp_path / "output", f"{own}/photos")
    assert "photos: Note: 4 classes have too few images for that" in capsys.readouterr().err


def test_other_pictures_of_the_same_name_do_not_count_as_done(own, checkout, tmp_path):
    def jobs(word):
        request = RunRequest(trainers=["RPO"], datasets=[word], seeds=[1], config="tiny")
        return plan(PROTOCOLS["few_shot"], checkout, tmp_path / "output", None, request)

    first = jobs(f"mine={own}/photos")
    config = {"DATASET": {"ROOT": str(own / "photos")}}
    result = {"format": 1, "status": "done", "metrics": {"accuracy": 5.0}, **first[0].request, "config": config}
    first[0].folder.mkdir(parents=True)
    (first[0].folder / "results.json").write_text(json.dumps(result))
    refuse_other_settings(first, checkout)
    with pytest.raises(UserError, match="DATASET.ROOT: expected '.*birds', got '.*photos'(.|\n)*name: NAME=PATH"):
        refuse_other_settings(jobs(f"mine={own}/birds"), checkout)
