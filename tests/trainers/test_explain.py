"""`--explain` reports what the code does: attention patterns, learned tokens, nearest words, features."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from promptlearn.report.explanations import FEATURES, MAPS
from tests.methods import maker
from trainers.explain import nearest_words, observe

ROOT = Path(__file__).parents[2]
FROZEN_TEXT = [{"words": (["words"], 0)}]
FROZEN_IMAGE = [{"image": (["image"], 0)}]
TEXT_OF_COOP = [{"start": (["start"], 4), "rest": (["start", "rest"], 0)}]
DEEP_TEXT = [{"start": (["start"], 0), "ctx": (["start", "ctx"], 2), "rest": (["start", "ctx", "rest"], 0)}]
DEEP_IMAGE = [{"image": (["image", "prompts"], 0), "prompts": (["image", "prompts"], 2)}]
# method -> settings, and for both sides the scenes: segment -> (what it attends to, number of learned tokens)
METHODS = {
    "ZeroshotCLIP": ([], FROZEN_TEXT, FROZEN_IMAGE),
    "LP": ([], FROZEN_TEXT, FROZEN_IMAGE),
    "LinearProbeCLIP": ([], [], FROZEN_IMAGE),
    "CoOp": (["TRAINER.COOP.N_CTX", 4], TEXT_OF_COOP, FROZEN_IMAGE),
    "CoCoOp": (["TRAINER.COCOOP.N_CTX", 4], TEXT_OF_COOP, FROZEN_IMAGE),
    "MaPLe": (["TRAINER.MAPLE.PROMPT_DEPTH", 2], DEEP_TEXT, DEEP_IMAGE),
    "IVLP": (["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 2], DEEP_TEXT, DEEP_IMAGE),
    "VPT": (["TRAINER.VPT.N_CTX_VISION", 2], FROZEN_TEXT, DEEP_IMAGE),
    "SEP": (
        ["TRAINER.SEP.LAYERS", [1], "TRAINER.SEP.N_CTX", 2, "TRAINER.SEP.N_CTX_V", 2],
        FROZEN_TEXT + DEEP_TEXT,  # its features are averaged with frozen CLIP's
        FROZEN_IMAGE + DEEP_IMAGE,
    ),
    "RPO": (
        ["TRAINER.RPO.K", 3],
        [{"words": (["words"], 0), "prompts": (["words"], 3)}],
        [{"image": (["image"], 0), "prompts": (["image"], 3)}],
    ),
    "RPO-unmasked": (
        ["TRAINER.RPO.K", 3, "TRAINER.RPO.MASK", False],
        [{"words": (["words"], 0), "prompts": (["words", "prompts"], 3)}],
        [{"image": (["image", "prompts"], 0), "prompts": (["image", "prompts"], 3)}],
    ),
    "RPO-text": (
        ["TRAINER.RPO.K", 3, "TRAINER.RPO.PROMPTS", "text"],
        [{"words": (["words"], 0), "prompts": (["words"], 3)}],
        FROZEN_IMAGE,
    ),
}


@pytest.fixture
def make(make_trainer):
    return maker(make_trainer, {method: settings for method, (settings, *_) in METHODS.items()})


def segments(trainer):
    """Return the segments of both sides by name; of equal names, the last."""
    towers = observe(trainer)
    return {side: {s["name"]: s for scene in tower["scenes"] for s in scene} for side, tower in towers.items()}


@pytest.mark.parametrize("method", METHODS)
def test_the_attention_pattern_is_that_of_the_methods_docstring(make, method):
    towers = observe(make(method))
    _, text, image = METHODS[method]
    for side, expected in (("text", text), ("image", image)):
        seen = [{s["name"]: (s["attends_to"], sum(s["learned"])) for s in scene} for scene in towers[side]["scenes"]]
        assert seen == expected, side
        for scene in towers[side]["scenes"]:
            for segment in scene:
                assert len(segment["learned"]) == segment["tokens"]
                assert segment["causal"] == (side == "text" and segment["name"] in segment["attends_to"])


def test_learned_and_frozen_tokens_of_a_segment_are_distinguished(make):
    assert segments(make("CoOp"))["text"]["start"]["learned"] == [False, True, True, True, True]


def test_replaced_rewritten_and_prefilled_segments_are_reported(make, make_trainer):
    assert segments(make("MaPLe"))["text"]["ctx"]["replaced"] == 1
    assert segments(make("SEP"))["image"]["prompts"]["rewritten"] == [1]
    prefilled = {name: s["prefilled"] for name, s in segments(make("RPO"))["text"].items()}
    assert prefilled == {"words": True, "prompts": False}
    on_patches = make_trainer("VPT", "TRAINER.VPT.LOCATION", "add", "TRAINER.VPT.PROMPT_DEPTH_VISION", 2)
    assert segments(on_patches)["image"]["image"]["rewritten"] == [0, 1]


@pytest.mark.parametrize("method", ["RPO", "SEP", "CoCoOp"])
def test_observing_changes_nothing(make, method):
    trainer = make(method)
    trainer.set_model_mode("eval")
    images = next(iter(trainer.test_loader))["img"]
    with torch.no_grad():
        before = trainer.model(images)
        state = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        with torch.enable_grad():
            observe(trainer)
        assert torch.equal(trainer.model(images), before)
    assert all(torch.equal(value, state[name]) for name, value in trainer.model.state_dict().items())
    towers = trainer.model.clip.transformer, trainer.model.clip.visual.transformer
    assert all(tower.trace is None for tower in towers)
    assert all(p.grad is None for p in trainer.model.parameters())


def test_a_vector_that_is_a_words_embedding_is_nearest_to_it(make_trainer):
    trainer = make_trainer("CoOp", "TRAINER.COOP.CTX_INIT", "a photo of a")
    nearest = nearest_words(trainer.model)
    assert [vector["vector"] for vector in nearest] == ["ctx 1", "ctx 2", "ctx 3", "ctx 4"]
    for vector, word in zip(nearest, ["a", "photo", "of", "a"], strict=True):
        assert vector["words"][0] == [word, pytest.approx(0, abs=1e-3)]
        distances = [distance for _, distance in vector["words"]]
        assert len(distances) == 5 and distances == sorted(distances)


def test_class_specific_vectors_are_labeled_by_class(make_trainer):
    nearest = nearest_words(make_trainer("CoOp", "TRAINER.COOP.N_CTX", 2, "TRAINER.COOP.CSC", True).model)
    assert [vector["vector"] for vector in nearest][:3] == ["ctx 1 1", "ctx 1 2", "ctx 2 1"]


def test_methods_without_text_vectors_have_no_nearest_words(make):
    assert nearest_words(make("VPT").model) == nearest_words(make("ZeroshotCLIP").model) == []


def test_explaining_a_run_leaves_its_files_unchanged(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run, output = tmp_path / "run", tmp_path / "run" / "explain"
    short = ["DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", "DATASET.SUBSAMPLE_CLASSES", "base"]
    assert train.main(["--trainer", "RPO", "--seed", "1", "--output-dir", str(run), *short]) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    explain = ["--config-file", str(run / "config.yaml"), "--eval-only", "--explain", "--model-dir", str(run)]
    assert train.main([*explain, "--output-dir", str(output)]) == 0
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    assert not (output / "results.json").exists()

    explanation, result = json.loads((output / "explain.json").read_text()), json.loads(before["results.json"])
    assert explanation["prompts_sha256"] == result["prompts_sha256"]
    assert explanation["towers"]["text"]["scenes"] and len(explanation["words"]) == 8
    with np.load(output / "explain.npz") as arrays:
        assert set(arrays) == FEATURES | MAPS
        assert len(arrays["before"]) == len(arrays["after"]) == len(arrays["label"]) == 200  # 5 classes, 40 of each
        assert np.allclose(np.linalg.norm(arrays["before"].astype(float), axis=1), 1, atol=1e-2)
        assert sorted(set(arrays["classname"].tolist())) == sorted(result["metrics"]["per_class"])


@pytest.mark.parametrize("method", ["ZeroshotCLIP", "LinearProbeCLIP"])
def test_a_frozen_image_side_is_explained_despite_cached_features(tmp_path, monkeypatch, method):
    monkeypatch.chdir(ROOT)
    few = ["DATASET.NUM_SHOTS", "1", "DATASET.SUBSAMPLE_CLASSES", "base"]
    flags, run = ["--trainer", method, "--seed", "1"], str(tmp_path / "run")
    assert train.main([*flags, "--output-dir", run, *few]) == 0  # fills the feature cache
    explain = ["--eval-only", "--explain", "--model-dir", run, "--output-dir", str(tmp_path / "explain")]
    assert train.main([*flags, *explain, *few]) == 0
    explanation = json.loads((tmp_path / "explain" / "explain.json").read_text())
    assert [[s["name"] for s in scene] for scene in explanation["towers"]["image"]["scenes"]] == [["image"]]
    with np.load(tmp_path / "explain" / "explain.npz") as arrays:
        assert np.allclose(arrays["before"], arrays["after"], atol=1e-3)


def test_explain_without_a_model_is_refused(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert train.main(["--trainer", "RPO", "--seed", "1", "--explain"]) == 2
    assert "expected --eval-only and --model-dir too" in capsys.readouterr().err
