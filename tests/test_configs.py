"""Every shipped config file merges strictly and opens with its purpose and the command that uses it."""

from pathlib import Path

import pytest
import torch

import datasets  # noqa: F401  (registers)
import trainers
from dassl.config import get_cfg_default, merge
from dassl.data import DataManager
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from promptlearn.experiments import PROTOCOLS, Checkout

ROOT = Path(__file__).parents[1]
TRAINERS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/trainers/*/*.yaml"))
DATASETS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/datasets/*.yaml"))


def merged(*files):
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    merge(cfg, [ROOT / file for file in files])
    return cfg


@pytest.mark.parametrize("file", TRAINERS + DATASETS)
def test_a_config_merges_and_opens_with_its_purpose_and_command(file):
    merged(file)
    purpose, *rest = (line for line in (ROOT / file).read_text().splitlines() if line.startswith("#"))
    assert len(purpose) > 20
    commands = [line for line in rest if line.startswith("#   ")]
    assert any(file in line or "scripts/rpo/base2new.sh" in line for line in commands), "no command that uses it"


@pytest.mark.parametrize("file", TRAINERS)
def test_a_method_config_names_an_existing_backbone_and_method(file):
    cfg = merged(file)
    assert cfg.MODEL.BACKBONE.NAME
    TRAINER_REGISTRY.get(Path(file).parent.name)
    small = cfg.MODEL.BACKBONE.NAME == "tiny"
    assert tuple(cfg.INPUT.SIZE) == ((40, 40) if small else (224, 224))


@pytest.mark.parametrize("file", DATASETS)
def test_a_dataset_config_names_a_registered_dataset(file):
    DATASET_REGISTRY.get(merged(file).DATASET.NAME)


# Files, registered names, and templates of the CoOp family; "": "a photo of a {}."
COOP_SETS = {
    "imagenet": ("ImageNet", ""),
    "caltech101": ("Caltech101", ""),
    "oxford_pets": ("OxfordPets", "a photo of a {}, a type of pet."),
    "stanford_cars": ("StanfordCars", ""),
    "oxford_flowers": ("OxfordFlowers", "a photo of a {}, a type of flower."),
    "food101": ("Food101", "a photo of {}, a type of food."),
    "fgvc_aircraft": ("FGVCAircraft", "a photo of a {}, a type of aircraft."),
    "sun397": ("SUN397", ""),
    "dtd": ("DescribableTextures", "{} texture."),
    "eurosat": ("EuroSAT", "a centered satellite photo of {}."),
    "ucf101": ("UCF101", "a photo of a person doing {}."),
    "imagenetv2": ("ImageNetV2", ""),
    "imagenet_sketch": ("ImageNetSketch", ""),
    "imagenet_a": ("ImageNetA", ""),
    "imagenet_r": ("ImageNetR", ""),
}


@pytest.mark.parametrize("file", COOP_SETS)
def test_datasets_have_the_names_and_templates_of_the_coop_family(file):
    name, template = COOP_SETS[file]
    cfg = merged(f"configs/datasets/{file}.yaml")
    assert cfg.DATASET.NAME == name and not cfg.DATASET.PROMPT
    assert DATASET_REGISTRY.get(name).prompt == (template or "a photo of a {}.")


@pytest.mark.parametrize("demo", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_names_existing_methods_and_files(protocol, demo):
    settings = Checkout(ROOT).settings(protocol, demo)
    for method, names in settings["configs"].items():
        for name in names.values() if isinstance(names, dict) else [names]:
            assert f"configs/trainers/{method}/{name}.yaml" in TRAINERS
    names = [*settings["datasets"], *settings["builtin"], settings["source"]]
    assert {f"configs/datasets/{name}.yaml" for name in names} <= set(DATASETS)
    assert {*settings["trainers"], *settings["variants"]} <= settings["configs"].keys()


@pytest.mark.parametrize("demo", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_methods_of_a_protocol_get_the_same_views_and_backbone(protocol, demo):
    settings = Checkout(ROOT).settings(protocol, demo)
    conditions = {}
    for method in settings["trainers"]:
        names = settings["configs"][method]
        cfg = merged(f"configs/trainers/{method}/{names['default'] if isinstance(names, dict) else names}.yaml")
        conditions[method] = (cfg.INPUT, cfg.MODEL.BACKBONE.NAME, cfg.DATALOADER.TRAIN_X.SAMPLER)
    first = conditions[settings["trainers"][0]]
    assert [method for method, condition in conditions.items() if condition != first] == []


def test_methods_get_the_same_sample_in_the_same_order_and_views(monkeypatch, tmp_path):
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path))
    seen = {}
    for method in ("CoOp", "RPO", "SEP"):  # batches of 32, 4 and 32
        cfg = merged("configs/datasets/digits.yaml", f"configs/trainers/{method}/tiny.yaml")
        cfg.merge_from_list(["SEED", 3, "DATASET.NUM_SHOTS", 5])
        manager = DataManager(cfg)
        loader, views = manager.train_loader_x, []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            batches = list(loader)
            # An incomplete last batch is dropped, so large batches end earlier.
            views.append(torch.cat([batch["img"] for batch in batches])[:32])
        seen[method] = (manager.dataset.draw_hash, torch.stack(views))
    (draw, views), *others = seen.values()
    assert draw and not torch.equal(views[0], views[1])
    for other, other_views in others:
        assert other == draw and torch.equal(other_views, views)


def test_the_page_of_the_methods_lists_every_method():
    lines = (ROOT / "docs/methods.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if ".py` |" in line]
    groups = Checkout(ROOT).settings("base2new", False)["groups"]
    assert {row[0]: row[3] for row in rows if row[3]} == {name: group for group in groups for name in groups[group]}
    assert all((ROOT / "trainers" / row[4].strip("`")).is_file() for row in rows)
