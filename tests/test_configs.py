"""Every shipped configuration file merges strictly and opens with its purpose and the command that uses it."""

from pathlib import Path

import pytest
import yaml

import datasets  # noqa: F401  (registers)
import trainers
from dassl.config import get_cfg_default, merge
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

ROOT = Path(__file__).parents[1]
TRAINERS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/trainers/*/*.yaml"))
DATASETS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/datasets/*.yaml"))
PROTOCOLS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/protocols/*.yaml"))


def merged(*files):
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    merge(cfg, [ROOT / file for file in files])
    return cfg


@pytest.mark.parametrize("file", TRAINERS + DATASETS)
def test_a_file_merges_and_opens_with_its_purpose_and_its_command(file):
    merged(file)
    purpose, *rest = (line for line in (ROOT / file).read_text().splitlines() if line.startswith("#"))
    assert len(purpose) > 20
    commands = [line for line in rest if line.startswith("#   ")]
    assert any(file in line or "scripts/rpo/base2new.sh" in line for line in commands), "no command that uses it"


@pytest.mark.parametrize("file", TRAINERS)
def test_a_methods_file_names_a_backbone_and_a_method_that_exist(file):
    cfg = merged(file)
    assert cfg.MODEL.BACKBONE.NAME
    TRAINER_REGISTRY.get(Path(file).parent.name)
    small = cfg.MODEL.BACKBONE.NAME == "tiny"
    assert tuple(cfg.INPUT.SIZE) == ((40, 40) if small else (224, 224))


@pytest.mark.parametrize("file", DATASETS)
def test_a_data_sets_file_names_one_that_is_registered(file):
    DATASET_REGISTRY.get(merged(file).DATASET.NAME)


# Files, registered names and templates of the CoOp family; "a photo of a {}." where nothing else is said.
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
def test_the_fifteen_data_sets_have_the_names_and_templates_of_the_coop_family(file):
    name, template = COOP_SETS[file]
    cfg = merged(f"configs/datasets/{file}.yaml")
    assert cfg.DATASET.NAME == name and not cfg.DATASET.PROMPT
    assert DATASET_REGISTRY.get(name).prompt == (template or "a photo of a {}.")


@pytest.mark.parametrize("file", PROTOCOLS)
def test_a_protocol_names_methods_and_files_that_exist(file):
    protocol = yaml.safe_load((ROOT / file).read_text())
    for method, name in protocol["configs"].items():
        assert f"configs/trainers/{method}/{name}.yaml" in TRAINERS
        assert f"configs/trainers/{method}/{protocol['demo']['config']}.yaml" in TRAINERS
    assert {f"configs/datasets/{name}.yaml" for name in protocol["demo"]["datasets"]} <= set(DATASETS)
