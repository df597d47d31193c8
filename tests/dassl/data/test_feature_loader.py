"""Features in place of images are the same for all batches, workers and stores, and never another image's."""

import pytest
import torch
from PIL import Image

from basics import UserError
from dassl.data import UNREADABLE, DataManager, feature_loader, with_features
from dassl.data.feature_loader import FeatureLoader


def sums(images):
    """Encode (B, 3, H, W) -> (B, 2)."""
    return torch.stack([images.sum((1, 2, 3)), images[:, 0, 0, 0]], dim=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_loader, "cache_dir", lambda *parts: tmp_path.joinpath("cache", *parts))
    return tmp_path / "cache"


def loaders(cfg, encode=sums, key=None):
    manager = DataManager(cfg)
    return tuple(
        with_features(loader, cfg, encode, key or {"weights": "ab12"})
        for loader in (manager.train_loader_x, manager.test_loader)
    )


def passes(loader, epochs=(0,)):
    batches = []
    for epoch in epochs:
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def forbidden(images):
    pytest.fail("encoded again")


def assert_same(a, b):
    for one, other in zip(a, b, strict=True):
        assert one["impath"] == other["impath"]
        assert all(torch.equal(one[key], other[key]) for key in ("features", "label", "domain", "index"))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_those_of_the_loader_with_features_for_images(cfg, num_workers):
    manager = DataManager(cfg)
    cfg.DATALOADER.NUM_WORKERS = num_workers
    for ours, plain in zip(loaders(cfg), (manager.train_loader_x, manager.test_loader), strict=True):
        assert isinstance(ours, FeatureLoader) and len(ours) == len(plain)
        expected = passes(plain, (0, 2))
        for batch in expected:
            batch["features"] = sums(batch["img"])
        assert_same(passes(ours, (0, 2)), expected)


def test_a_full_store_serves_other_runs_without_reading_an_image(cfg, monkeypatch):
    first = [passes(loader, (0, 1)) for loader in loaders(cfg)]
    cfg.DATALOADER.FEATURES_GIB = 0.0
    without = [passes(loader, (0, 1)) for loader in loaders(cfg)]
    cfg.DATALOADER.FEATURES_GIB = 1.0
    monkeypatch.setattr(Image, "open", lambda path: pytest.fail("opened an image"))
    again = [passes(loader, (0, 1)) for loader in loaders(cfg, forbidden)]
    for a, b, c in zip(first, without, again, strict=True):
        assert_same(a, b)
        assert_same(a, c)
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 5
    train, _ = loaders(cfg, forbidden)
    assert sum(len(batch["features"]) for batch in passes(train)) == 15


def change_image(cfg):
    Image.new("RGB", (12, 14), (1, 2, 3)).save(DataManager(cfg).dataset.train_x[0].impath)


@pytest.mark.parametrize(
    "change",
    [
        lambda cfg: cfg.merge_from_list(["SEED", 2]),
        lambda cfg: cfg.merge_from_list(["INPUT.RRCROP_SCALE", (0.5, 1.0)]),
        lambda cfg: cfg.merge_from_list(["DATASET.SUBSAMPLE_CLASSES", "base"]),
        change_image,
    ],
)
def test_another_seed_transform_list_or_image_is_another_feature(cfg, change):
    passes(loaders(cfg)[0])
    encoded = []
    change(cfg)
    passes(loaders(cfg, lambda images: encoded.append(len(images)) or sums(images))[0])
    assert encoded


def test_other_weights_and_another_epoch_are_another_feature(cfg):
    passes(loaders(cfg)[0])
    for key, epoch in (({"weights": "cd34"}, 0), (None, 1)):
        with pytest.raises(pytest.fail.Exception, match="encoded again"):
            passes(loaders(cfg, forbidden, key)[0], (epoch,))


def test_test_images_do_not_depend_on_the_seed(cfg):
    expected = passes(loaders(cfg)[1])
    cfg.SEED = 2
    assert_same(passes(loaders(cfg, forbidden)[1]), expected)


def test_a_damaged_store_gives_the_same_features(cfg, cache, capsys):
    expected = passes(loaders(cfg)[1])
    (path,) = (cache / "features").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    assert_same(passes(loaders(cfg)[1]), expected)
    assert "is damaged" in capsys.readouterr().err
    assert_same(passes(loaders(cfg, forbidden)[1]), expected)  # repaired


def test_views_return_in_turn_and_are_encoded_once(cfg):
    cfg.INPUT.VIEWS = 2
    train, _ = loaders(cfg)
    seen = []
    for epoch in range(4):
        batches = passes(train, (epoch,))
        indices, features = (torch.cat([batch[key] for batch in batches]) for key in ("index", "features"))
        seen.append(dict(zip(indices.tolist(), features[:, 0].tolist(), strict=True)))
    both = [seen[0].keys() & seen[epoch].keys() for epoch in range(4)]
    assert all(seen[0][i] != seen[1][i] for i in both[1]) and all(seen[0][i] == seen[2][i] for i in both[2])
    assert list(seen[0]) != list(seen[2])  # the order differs in every epoch
    train, _ = loaders(cfg, forbidden)
    assert len(passes(train, (5, 6, 7, 8))) == 4 * len(train)


def test_a_bad_image_is_named_before_the_first_batch(cfg):
    train, _ = loaders(cfg)
    with open(train.dataset.data_source[0].impath, "wb"):
        pass
    with pytest.raises(UserError, match="1 of 18 training images are unreadable"):
        next(iter(train))


def test_an_unreadable_test_image_stays_wrong_and_is_never_kept(cfg, cache):
    cfg.TEST.BAD_IMAGES = "wrong"
    _, test = loaders(cfg)
    with open(test.dataset.data_source[2].impath, "wb"):
        pass
    for _ in range(2):
        labels = torch.cat([batch["label"] for batch in passes(loaders(cfg)[1])])
        assert labels[2] == UNREADABLE - test.dataset.data_source[2].label and (labels < 0).sum() == 1
    assert not (cache / "features").exists()


def test_loaders_of_several_views_stay_unchanged(cfg):
    assert with_features(None, cfg, sums, {}) is None
    cfg.DATALOADER.K_TRANSFORMS = 2
    train, test = loaders(cfg)
    assert not isinstance(train, FeatureLoader) and isinstance(test, FeatureLoader)
