"""Few-shot datasets: roots, samples and their records, base and new classes, prompts."""

import json
from collections import Counter
from pathlib import Path

import pytest

from basics import UserError, cache_dir
from dassl.data import DataManager
from dassl.data.datasets import DATASET_REGISTRY, build_dataset, fewshot, splits

# SHA-256 of {"train": [[path, label], ...], "val": [...]} of the draw of two shots with seed 1.
HASH = "e6c1baf8fff809ecbb2e94898a609a98d71acb7d5c6e50a955b82b1f4ae4e023"
# That of half of the training images and all validation images with seed 1.
HASH_OF_HALF = "301b487fef0dd7cf9a659b9c13602642b44e9d8199dacc9358e4b58843ff10f0"


def build(cfg, **settings):
    for key, value in settings.items():
        if key == "SEED":
            cfg.SEED = value
        else:
            cfg.DATASET[key] = value
    return build_dataset(cfg)


def paths(items):
    return [item.impath for item in items]


def record(root, shots=2, seed=1):
    return root / "small" / "split_fewshot" / f"shot_{shots}-seed_{seed}.json"


def test_without_shots_all_images_are_used(cfg, root):
    data = build(cfg)
    assert (len(data.train_x), len(data.val), len(data.test)) == (18, 15, 6)
    assert not (root / "small" / "split_fewshot").exists()


def test_val_has_at_most_four_shots(cfg):
    data = build(cfg, NUM_SHOTS=5)
    assert (len(data.train_x), len(data.val), len(data.test)) == (15, 12, 6)


def test_a_class_with_too_few_images_keeps_all_of_them_with_a_note(cfg, capsys):
    data = build(cfg, NUM_SHOTS=16)
    assert len(data.train_x) == 18
    assert "3 classes have fewer than 16 images" in capsys.readouterr().err


def test_a_sample_is_recorded_with_relative_paths_and_read_again(cfg, root):
    first = build(cfg, NUM_SHOTS=2)
    written = record(root).read_bytes()
    again = build(cfg)
    assert paths(again.train_x) == paths(first.train_x) and paths(again.val) == paths(first.val)
    assert again.draw_hash == first.draw_hash
    assert record(root).read_bytes() == written
    path, label, name = json.loads(written)["train"][0]
    assert (path.split("/")[0], label, name) == ("pictures", 0, "ant")


def test_the_hash_identifies_the_sample_not_its_folder(cfg, root, tmp_path_factory):
    build(cfg)  # makes the split
    one = build(cfg, NUM_SHOTS=2).draw_hash
    assert build(cfg, SUBSAMPLE_CLASSES="new").draw_hash == one
    assert build(cfg, SUBSAMPLE_CLASSES="all", SEED=2).draw_hash != one
    assert build(cfg, NUM_SHOTS=1, SEED=1).draw_hash != one
    moved = tmp_path_factory.mktemp("elsewhere") / "DATA"
    root.rename(moved)
    assert build(cfg, ROOT=str(moved), NUM_SHOTS=2).draw_hash == one


def test_the_hash_of_a_sample_is_the_same_in_every_version(cfg):
    build(cfg)
    assert build(cfg, NUM_SHOTS=2).draw_hash == HASH


def test_a_record_of_another_sample_stops_the_run(cfg, root):
    build(cfg)
    build(cfg, NUM_SHOTS=2)
    changed = json.loads(record(root).read_text())
    changed["train"].reverse()
    record(root).write_text(json.dumps(changed))
    with pytest.raises(
        UserError, match="shot_2-seed_1.json: expected this dataset's sample of 2 shots for seed 1, got another"
    ):
        build(cfg)
    assert json.loads(record(root).read_text()) == changed


@pytest.mark.parametrize("text", ["", "[]", '{"train": 1, "val": []}'])
def test_a_damaged_record_stops_the_run(cfg, root, text):
    build(cfg, NUM_SHOTS=2)
    record(root).write_text(text)
    with pytest.raises(UserError, match="shot_2-seed_1.json"):
        build(cfg)


def test_the_sample_made_with_the_split_stays_the_one_of_its_seed(cfg, root, monkeypatch):
    def make_split(self):
        self.rng.random()
        return make(self)

    small = DATASET_REGISTRY.get("Small")
    make = small.make_split
    monkeypatch.setattr(small, "make_split", make_split)
    first = build(cfg, NUM_SHOTS=2)
    again = build(cfg)
    assert paths(again.train_x) == paths(first.train_x) and paths(again.val) == paths(first.val)

    # The record counts as long as it could be a draw from this split, and is kept for good.
    record(root).unlink()
    fresh = build(cfg)
    assert paths(fresh.train_x) != paths(first.train_x)


def test_a_sample_of_another_split_is_refused(cfg, root):
    build(cfg, NUM_SHOTS=2)
    split = root / "small" / "split_zhou_Small.json"
    parts = json.loads(split.read_text())
    parts["train"], parts["val"] = parts["val"], parts["train"]
    split.write_text(json.dumps(parts))
    assert json.loads(record(root).read_text())["after_making_split"]
    with pytest.raises(UserError, match="got another: .* images exist, but the others or the order of the classes"):
        build(cfg)


def test_a_folder_that_cannot_be_written_is_reported(cfg, root, monkeypatch, capsys):
    def refuse(obj, path):
        raise UserError(f"cannot write {path}")

    expected = build(cfg, NUM_SHOTS=2)
    record(root).unlink()
    monkeypatch.setattr(fewshot, "write_json", refuse)
    assert paths(build(cfg).train_x) == paths(expected.train_x)
    assert "Note: cannot record the sample. " in capsys.readouterr().err
    assert not record(root).exists()


def test_in_a_read_only_folder_split_and_record_go_to_the_cache(cfg, root, monkeypatch, capsys):
    cache = cache_dir()
    write = fewshot.write_json

    def refuse(obj, path):
        if path.is_relative_to(root):
            raise UserError(f"cannot write {path}")
        write(obj, path)

    monkeypatch.setattr(fewshot, "write_json", refuse)
    monkeypatch.setattr(splits, "write_json", lambda obj, path: refuse(obj, Path(path)))
    first = build(cfg, NUM_SHOTS=2)
    found = {path.name for path in cache.rglob("*.json")}
    assert found == {"split_zhou_Small.json", "shot_2-seed_1.json"}
    again = build(cfg)
    assert paths(again.train_x) == paths(first.train_x)
    assert f"Reading split from {cache}" in capsys.readouterr().out
    assert [path.name for path in (root / "small").iterdir()] == ["pictures"]


def test_an_old_pickle_is_ignored_with_a_note(cfg, root, capsys):
    expected = build(cfg, NUM_SHOTS=2)
    record(root).with_suffix(".pkl").write_bytes(b"not a pickle at all")
    assert paths(build(cfg).train_x) == paths(expected.train_x)
    assert "shot_2-seed_1.pkl, because a pickle can run code" in capsys.readouterr().err


def test_without_a_seed_nothing_is_recorded(cfg, root):
    build(cfg, NUM_SHOTS=2, SEED=-1)
    assert not record(root, seed=-1).exists()


def test_base_and_new_are_halves_of_one_sample(cfg):
    whole = build(cfg, NUM_SHOTS=2)
    base = build(cfg, SUBSAMPLE_CLASSES="base")
    new = build(cfg, SUBSAMPLE_CLASSES="new")
    assert (base.classnames, new.classnames) == (["ant", "bee"], ["cat"])
    assert paths(base.train_x) + paths(new.train_x) == paths(whole.train_x)
    assert [item.label for item in new.test] == [0, 0]


def per_class(items):
    return list(Counter(item.classname for item in items).values())


def test_a_fraction_is_a_share_of_each_class_and_at_least_one_image(cfg, root):
    data = build(cfg, TRAIN_FRACTION=0.5)
    assert per_class(data.train_x) == [3, 3, 3] and len(data.val) == 15
    assert per_class(build(cfg, TRAIN_FRACTION=0.01).train_x) == [1, 1, 1]
    assert not (root / "small" / "split_fewshot").exists()


def test_a_fraction_is_a_function_of_the_seed_and_includes_smaller_ones(cfg):
    half = build(cfg, TRAIN_FRACTION=0.5)  # makes the split, too
    again, third = build(cfg), build(cfg, TRAIN_FRACTION=0.34)
    assert again.draw_hash == half.draw_hash and paths(again.train_x) == paths(half.train_x)
    assert third.draw_hash != half.draw_hash and set(paths(third.train_x)) < set(paths(half.train_x))
    assert build(cfg, TRAIN_FRACTION=0.5, SEED=2).draw_hash != half.draw_hash


def test_base_and_new_are_halves_of_one_fraction(cfg):
    whole = build(cfg, TRAIN_FRACTION=0.5)
    base, new = build(cfg, SUBSAMPLE_CLASSES="base"), build(cfg, SUBSAMPLE_CLASSES="new")
    assert base.draw_hash == new.draw_hash == whole.draw_hash
    assert paths(base.train_x) + paths(new.train_x) == paths(whole.train_x)


def test_the_hash_of_a_fraction_is_the_same_in_every_version(cfg):
    assert build(cfg, TRAIN_FRACTION=0.5).draw_hash == HASH_OF_HALF


def test_the_config_may_replace_the_prompt(cfg):
    assert build(cfg).prompt == "a drawing of a {}."
    assert build(cfg, PROMPT="one {}").prompt == "one {}"
    assert build(cfg, PROMPT="a photo of a _.").prompt == "a photo of a {}."
    with pytest.raises(UserError, match="DATASET.PROMPT: expected a text with {} for the class name, got 'a photo'"):
        build(cfg, PROMPT="a photo")


def test_a_wrong_root_is_explained(cfg, root):
    with pytest.raises(UserError, match="--root: expected the DATA folder that contains small/ for Small, got none"):
        build(cfg, ROOT="")
    with pytest.raises(
        UserError, match="--root: expected the DATA folder for Small, got .*nowhere, which does not exist"
    ):
        build(cfg, ROOT=str(root / "nowhere"))
    with pytest.raises(UserError, match="--root: expected the folder small/ of Small in .*, got pictures"):
        build(cfg, ROOT=str(root / "small"))


def test_a_root_that_is_the_dataset_itself_is_corrected(cfg, root):
    with pytest.raises(UserError) as error:
        build(cfg, ROOT=str(root / "small"))
    assert str(error.value).endswith(f"Set --root to its parent, {root}.")


def test_a_split_without_images_of_a_class_is_refused(cfg, root):
    build(cfg)
    split = root / "small" / "split_zhou_Small.json"
    parts = json.loads(split.read_text())
    parts["train"] = [entry for entry in parts["train"] if entry[1] != 1]
    split.write_text(json.dumps(parts))
    for subsample in ("all", "base", "new"):
        with pytest.raises(UserError, match=r"first classes without a training image: 1 \(bee\)"):
            build(cfg, SUBSAMPLE_CLASSES=subsample)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts.update(test=[]), "expected images for testing"),
        (lambda parts: parts.update(train=[]), "expected training images, got none"),
        (lambda parts: parts["test"][0].__setitem__(1, 3), r"expected val and test labels from 0 to 2, .* got \[3\]"),
        (lambda parts: parts["train"][0].__setitem__(1, -1), "from -1 to 2"),
        (
            lambda parts: parts["train"].append([parts["train"][0][0], 2, "cat"]),
            "expected one label .* got 0 and 2",
        ),
    ],
)
def test_an_inconsistent_split_is_refused(cfg, root, change, message):
    build(cfg)
    split = root / "small" / "split_zhou_Small.json"
    parts = json.loads(split.read_text())
    change(parts)
    split.write_text(json.dumps(parts))
    with pytest.raises(UserError, match=message):
        DataManager(cfg)


def test_one_class_is_base_and_leaves_no_new_classes(cfg, root, capsys):
    build(cfg)
    split = root / "small" / "split_zhou_Small.json"
    parts = {
        part: [entry for entry in entries if not entry[1]] for part, entries in json.loads(split.read_text()).items()
    }
    split.write_text(json.dumps(parts))
    assert build(cfg, SUBSAMPLE_CLASSES="base").classnames == ["ant"]
    assert "Note: ant is the only class, so every prediction is correct" in capsys.readouterr().err
    with pytest.raises(UserError, match="expected training images, got none"):
        build(cfg, SUBSAMPLE_CLASSES="new")
