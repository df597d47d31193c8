"""Pretraining of the tiny CLIP: the script, and the weights and the card that it left in the repository."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from clip import CLIP, tokenize
from clip.sources import TINY
from clip.weights import load_clip
from datasets.demo import DEMO_SETS, Digits, RomanNumerals
from scripts import pretrain_tiny


def pretrain(folder, seed, monkeypatch):
    """Pretrain for one step on few images."""
    monkeypatch.setattr(pretrain_tiny, "DEMO_SETS", (RomanNumerals,))
    monkeypatch.setattr(pretrain_tiny, "THREADS", torch.get_num_threads())
    with torch.random.fork_rng():
        pretrain_tiny.main(["--seed", str(seed), "--steps", "1", "--pool", "1024", "--output", str(folder)])
    return folder / "tiny.safetensors"


def test_a_seed_gives_one_file_byte_for_byte(tmp_path, monkeypatch):
    first = pretrain(tmp_path / "first", 3, monkeypatch).read_bytes()
    assert pretrain(tmp_path / "second", 3, monkeypatch).read_bytes() == first
    assert pretrain(tmp_path / "other", 4, monkeypatch).read_bytes() != first
    assert sorted(p.name for p in (tmp_path / "first").iterdir()) == ["MODEL_CARD.md", "tiny.safetensors"]


def test_only_the_rows_in_use_are_stored(tmp_path, monkeypatch):
    path = pretrain(tmp_path, 3, monkeypatch)
    with safe_open(path, framework="pt") as file:
        rows, stored = file.get_tensor("token_embedding.rows"), file.get_tensor("token_embedding.weight")
        assert file.metadata()["seed"] == "3"
    assert rows.dtype == torch.int32 and stored.dtype == torch.float16
    assert len(rows) == len(stored) < 300
    table = load_clip(str(path)).token_embedding.weight
    assert table.shape == (49408, 128)
    assert torch.equal(table[rows.long()], stored.float())
    assert table.std().item() == pytest.approx(stored.float().std().item(), rel=0.05)


def test_renumbered_tokens_match_the_text():
    texts = ["a photo of a letter a.", "digit 3", "digit 3", "a star"]
    tokens, rows = pretrain_tiny.number_tokens(texts)
    read = torch.arange(77) <= tokens.argmax(1)[:, None]
    assert torch.equal(rows[tokens][read], tokenize(texts)[read])
    assert torch.equal(tokens.argmax(1), tokenize(texts).argmax(1))
    assert rows.tolist() == sorted(set(tokenize(texts)[read].tolist()))


def test_rescaling_does_not_change_the_function():
    torch.manual_seed(0)
    model = CLIP(pretrain_tiny.SIZES)
    with torch.no_grad():
        model.token_embedding.weight *= 20  # trained embeddings are larger than new ones; the norms' epsilon shrinks
        images, tokens = torch.randn(4, 3, 40, 40), tokenize(["a photo of a star.", "digit 3", "letter b", "cup"])
        before = model(images, tokens)[0]
        size = model.token_embedding.weight.std().item()
        pretrain_tiny.rescale(model, 0.1)
        after = model(images, tokens)[0]
    assert model.token_embedding.weight.std().item() == pytest.approx(0.1 * size)
    assert before.std() > 0.1
    torch.testing.assert_close(after, before, atol=0.02, rtol=0)


def test_an_epoch_shows_each_image_at_most_once_and_easy_ones_first():
    pool = pretrain_tiny.draw_pool(seed=0, easy=512, others=1024)
    generator = torch.Generator().manual_seed(0)
    shown = torch.cat(pretrain_tiny.epoch_batches(pool, pool.easy, generator))
    assert pool.easy[shown].all() and len(shown.unique()) == len(shown) >= 256
    batches = pretrain_tiny.epoch_batches(pool, torch.ones_like(pool.easy), generator)
    assert len(torch.cat(batches).unique()) == 128 * len(batches) > 1200
    ends = [pool.tokens[batch].argmax(1) for batch in batches]
    assert all(end.max() <= 12 or end.min() > 12 for end in ends)


def test_every_word_of_the_demo_sets_was_trained():
    with safe_open(TINY, framework="pt") as file:
        trained = set(file.get_tensor("token_embedding.rows").tolist())
    for dataset in DEMO_SETS:
        tokens = tokenize([dataset.prompt.format(name) for name in dataset.names])
        assert set(tokens[tokens > 0].tolist()) <= trained, dataset.__name__


@pytest.mark.parametrize("dataset", [Digits, RomanNumerals])
def test_the_shipped_weights_reach_the_accuracy_on_the_model_card(dataset):
    card = Path(TINY).with_name("MODEL_CARD.md").read_text()
    figures = re.search(rf"^\| {dataset.__name__} \|.*\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", card, re.M)
    reached = pretrain_tiny.zero_shot(load_clip("tiny"), dataset)
    assert reached == pytest.approx([float(value) for value in figures.groups()], abs=0.5)
    assert reached[0] > 60 and reached[1] > 60
