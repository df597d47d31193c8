"""The demo datasets: images made once, complete or not at all, the same for everyone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

from basics import UserError
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from datasets.demo import DEMO_SETS, Braille, Capitals, Digits, Letters, LettersSketch, LettersV2, RomanNumerals, digits
from datasets.demo.digits import scikit_digits
from datasets.demo.glyphs import DIGITS
from datasets.demo.store import DemoDataset

REPOSITORY = Path(__file__).resolve().parents[2]
FEW = {"train": 2, "val": 1, "test": 2}


@pytest.fixture
def few(monkeypatch):
    """Render few images per class, which is quick."""
    monkeypatch.setattr(DemoDataset, "counts", FEW)
    scans, labels = scikit_digits()
    first = torch.cat([(labels == digit).nonzero().squeeze(1)[: sum(FEW.values())] for digit in range(10)])
    monkeypatch.setattr(digits, "scikit_digits", lambda: (scans[first], labels[first]))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path))
    return tmp_path / "demo"


def config(name, root="", **keys):
    cfg = get_cfg_default()
    cfg.SEED = 1
    cfg.VERBOSE = False
    cfg.DATASET.NAME = name
    cfg.DATASET.ROOT = str(root)
    for key, value in keys.items():
        cfg.DATASET[key] = value
    return cfg


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("dataset", DEMO_SETS)
def test_a_dataset_renders_small_color_pngs_of_every_class(dataset, few, tmp_path):
    images = dataset.rendered(tmp_path)
    assert sorted(p.name for p in images.iterdir()) == ["rendered.json", "test", "train", "val"]
    for split in FEW:
        files = list((images / split).glob("*/*.png"))
        assert len(files) == FEW[split] * len(dataset.names)
        assert {p.parent.name for p in files} == {name.replace(" ", "_") for name in dataset.names}
        with Image.open(files[0]) as picture:
            assert (picture.size, picture.mode, picture.format) == ((40, 40), "RGB", "PNG")


@pytest.mark.parametrize("dataset", DEMO_SETS)
def test_a_dataset_is_registered_with_a_config_and_distinct_names(dataset):
    assert DATASET_REGISTRY.get(dataset.__name__) is dataset
    path = REPOSITORY / "configs" / "datasets" / f"{dataset.dataset_dir}.yaml"
    assert yaml.safe_load(path.read_text()) == {"DATASET": {"NAME": dataset.__name__}}
    argument = "" if dataset is Digits else f" {dataset.dataset_dir}"  # digits is the script's default
    assert f"#   bash scripts/rpo/base2new.sh{argument}\n" in path.read_text()
    assert len(set(dataset.names)) == len(dataset.names)
    assert "{}" in dataset.prompt


@pytest.mark.parametrize("dataset", [Digits, Letters, Braille])
def test_two_renderings_have_the_same_bytes(dataset, few, tmp_path):
    first, second = (contents(dataset.rendered(tmp_path / name)) for name in ("a", "b"))
    assert first == second


def test_rendering_does_not_change_the_global_random_state(few, tmp_path):
    before = torch.random.get_rng_state()
    Letters.rendered(tmp_path)
    Digits.rendered(tmp_path / "digits")
    assert torch.equal(before, torch.random.get_rng_state())


def test_splits_and_shifted_datasets_share_no_image(few):
    pictures = [
        picture.numpy().tobytes()
        for dataset in (Letters, LettersV2, LettersSketch, Capitals, Braille)
        for split in FEW
        for label in range(26)
        for picture in dataset.pictures(split, label)
    ]
    assert len(set(pictures)) == len(pictures) == 5 * 26 * 5


def test_a_full_dataset_has_its_declared_sizes(cache):
    dataset = RomanNumerals(config("RomanNumerals"))
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (320, 80, 400)
    assert dataset.classnames == ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    assert {item.impath for item in dataset.train_x} == {
        str(cache / "roman_numerals" / "images" / "train" / name / f"{i:04}.png")
        for name in dataset.classnames
        for i in range(32)
    }


def test_shots_and_class_halves_work_as_for_every_dataset(cache):
    base = Digits(config("Digits", NUM_SHOTS=16, SUBSAMPLE_CLASSES="base"))
    new = Digits(config("Digits", NUM_SHOTS=16, SUBSAMPLE_CLASSES="new"))
    assert (base.classnames, new.classnames) == (list(DIGITS[:5]), list(DIGITS[5:]))
    assert len(base.train_x) == len(new.train_x) == 80
    assert len(base.val) == 20
    assert len(base.test) + len(new.test) == 1797 - 400
    assert base.draw_hash == new.draw_hash
    assert (cache / "digits" / "split_fewshot" / "shot_16-seed_1.json").is_file()


def test_digits_are_the_images_of_scikit_learn(tmp_path):
    images = Digits.rendered(tmp_path)
    scans, labels = scikit_digits()
    assert len(list(images.glob("*/*/*.png"))) == len(scans) == 1797
    left = [set((labels == digit).nonzero().squeeze(1).tolist()) for digit in range(10)]
    for split in ("train", "val", "test"):
        for digit, name in enumerate(DIGITS):
            pictures = torch.stack([_grey(p) for p in sorted((images / split / name).glob("*.png"))])
            assert pictures.max() <= 0.96  # dark on light: the margin is the lightest
            # read off at the centers of 8 x 8 cells, each is nearest to one scan of its digit; no scan comes twice
            small = F.interpolate((0.95 - pictures[:, None, 6:34, 6:34]) / 0.85, size=(8, 8), mode="bicubic").flatten(1)
            known = torch.tensor(sorted(left[digit]))
            distance = torch.cdist(small, scans[known].flatten(1))
            nearest = known[distance.argmin(1)].tolist()
            assert distance.min(1).values.max() < 0.2
            assert len(set(nearest)) == len(nearest) == {"train": 32, "val": 8}.get(split, len(known))
            left[digit] -= set(nearest)
    assert not any(left)


def _grey(path):
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.getchannel(0), dtype=np.float32) / 255)


@pytest.mark.parametrize("root", ["", "pictures", "nowhere"])
def test_images_go_to_the_cache_whatever_the_data_folder(few, cache, tmp_path, root):
    (tmp_path / "pictures").mkdir()
    dataset = Capitals(config("Capitals", tmp_path / root if root else "", NUM_SHOTS=1))
    assert dataset.dataset_dir == str(cache / "capitals")
    assert len(dataset.test) == 52
    assert list((tmp_path / "pictures").iterdir()) == [] and not (tmp_path / "nowhere").exists()


def test_images_are_rendered_once(few, tmp_path, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in Letters.rendered(tmp_path).rglob("*")}
    monkeypatch.setattr(Letters, "_render", None)
    assert {p: p.stat().st_mtime_ns for p in Letters.rendered(tmp_path).rglob("*")} == before


def test_an_interrupted_rendering_leaves_nothing(few, tmp_path, monkeypatch):
    pictures = Letters.pictures

    def interrupted(split, label):
        if (split, label) == ("val", 3):
            raise KeyboardInterrupt
        return pictures(split, label)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Letters, "pictures", interrupted)
        Letters.rendered(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert Letters.rendered(tmp_path).is_dir()


def test_a_killed_rendering_is_repeated_and_its_litter_swept(few, tmp_path):
    killed, live = tmp_path / ".images-killed", tmp_path / ".images-live"
    for folder in (killed, live):
        (folder / "train" / "letter_a").mkdir(parents=True)
    assert len(list(Letters.rendered(tmp_path).glob("*/*/*.png"))) == 26 * 5
    assert killed.exists()  # it may be that of a live process
    os.utime(killed, (0, 0))
    Letters.rendered(tmp_path)
    assert not killed.exists() and live.exists()


def test_a_second_process_keeps_the_images_of_the_first(few, tmp_path, monkeypatch):
    render, first = Letters._render, {}

    def overtaken(folder):
        monkeypatch.setattr(Letters, "_render", render)
        images = Letters.rendered(tmp_path)  # another process starts later and is done earlier
        first.update({p: p.stat().st_ino for p in images.rglob("*")})
        render(folder)

    monkeypatch.setattr(Letters, "_render", overtaken)
    images = Letters.rendered(tmp_path)
    assert {p: p.stat().st_ino for p in images.rglob("*")} == first
    assert [p.name for p in tmp_path.iterdir()] == ["images"]


@pytest.mark.slow
def test_two_processes_can_render_at_once(tmp_path):
    script = f"""
import sys
from pathlib import Path
from datasets.demo import Letters
from datasets.demo.store import DemoDataset
DemoDataset.counts = {FEW}
print("ready", flush=True)
sys.stdin.readline()
print(Letters.rendered(Path(sys.argv[1])))
"""
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "letters")]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [p.stdout.readline() for p in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, f"{tmp_path / 'letters' / 'images'}\n"), err
    assert [p.name for p in (tmp_path / "letters").iterdir()] == ["images"]
    assert len(list((tmp_path / "letters").glob("images/*/*/*.png"))) == 26 * 5


def test_a_missing_image_is_reported_before_training(few, tmp_path):
    images = Letters.rendered(tmp_path)
    next(images.glob("test/letter_c/*.png")).unlink()
    with pytest.raises(UserError, match="expected 130 images, got 129. Delete the folder"):
        Letters.rendered(tmp_path)


def test_images_of_another_version_are_refused(few, tmp_path):
    images = Letters.rendered(tmp_path)
    (images / "rendered.json").write_text(json.dumps({"version": 0, "pictures": 130}))
    with pytest.raises(UserError, match="version 1, got version 0. Delete the folder"):
        Letters.rendered(tmp_path)


def test_foreign_images_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="expected rendered images of Letters"):
        Letters.rendered(tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=f"{cache / 'letters'}: expected a writable folder .*DASSL_CACHE"):
        Letters(config("Letters"))
