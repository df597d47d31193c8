"""What trainer files declare is read from their text, or the file is imported."""

from pathlib import Path

import pytest
from yacs.config import CfgNode

import datasets
import trainers
from dassl.config import get_cfg_default
from dassl.config.declared import NotDeclared, declare_keys, registered_names
from dassl.config.family import add_missing_nodes
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

FOLDER = Path(trainers.__file__).parent


def test_reading_the_methods_declares_the_same_keys_as_importing_them():
    read, imported = get_cfg_default(), get_cfg_default()
    declare_keys(read, FOLDER)
    add_missing_nodes(read)
    trainers.extend_cfg(imported)
    assert read == imported


@pytest.mark.parametrize("package, registry", [(trainers, TRAINER_REGISTRY), (datasets, DATASET_REGISTRY)])
def test_the_names_read_are_the_registered_ones(package, registry):
    prefix = f"{package.__name__}."  # other tests register toys
    ours = [name for name in registry.registered_names() if registry.get(name).__module__.startswith(prefix)]
    assert registered_names(Path(package.__file__).parent) == sorted(ours)


def test_a_method_may_be_a_package(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "__init__.py").write_text(
        "def extend_cfg(cfg):\n    cfg.A = 1\n\n\n@TRAINER_REGISTRY.register()\nclass X: ...\n"
    )
    cfg = CfgNode()
    declare_keys(cfg, tmp_path)
    assert cfg == CfgNode({"A": 1}) and registered_names(tmp_path) == ["X"]


def test_a_file_may_add_keys_to_the_node_of_a_later_one(tmp_path):
    (tmp_path / "a.py").write_text("def extend_cfg(cfg):\n    cfg.B.MORE = 2\n")
    (tmp_path / "b.py").write_text("def extend_cfg(cfg):\n    cfg.B = CfgNode()\n    cfg.B.ONE = 1\n")
    cfg = CfgNode()
    declare_keys(cfg, tmp_path)
    assert cfg == CfgNode({"B": {"ONE": 1, "MORE": 2}})


@pytest.mark.parametrize("lines", ["cfg.B = CfgNode()", "cfg.A.ONE = 1"])
def test_a_node_of_two_files_or_of_none_needs_an_import(tmp_path, lines):
    (tmp_path / "a.py").write_text(f"def extend_cfg(cfg):\n    {lines}\n")
    (tmp_path / "b.py").write_text("def extend_cfg(cfg):\n    cfg.B = CfgNode()\n")
    cfg = CfgNode()
    with pytest.raises(NotDeclared):
        declare_keys(cfg, tmp_path)
    assert cfg == CfgNode()


def test_a_folder_with_a_clip_package_needs_an_import(tmp_path):
    (tmp_path / "mma" / "clip").mkdir(parents=True)
    (tmp_path / "mma" / "clip" / "__init__.py").write_text("")
    with pytest.raises(NotDeclared):
        registered_names(tmp_path)


@pytest.mark.parametrize(
    "body",
    ["cfg.TRAINER.X = CfgNode({})", "cfg.TRAINER.X = len('ab')", "other.X = 1", "for k in 'ab':\n        cfg[k] = 1"],
)
def test_keys_declared_in_another_way_need_an_import(tmp_path, body):
    (tmp_path / "x.py").write_text(f"import torch\n\n\ndef extend_cfg(cfg):\n    {body}\n")
    cfg = CfgNode({"TRAINER": CfgNode()})
    with pytest.raises(NotDeclared):
        declare_keys(cfg, tmp_path)
    assert cfg == CfgNode({"TRAINER": CfgNode()})


def test_a_class_registered_by_a_call_needs_an_import(tmp_path):
    (tmp_path / "x.py").write_text("class X: ...\nTRAINER_REGISTRY.register(X)\n")
    with pytest.raises(NotDeclared):
        registered_names(tmp_path)


def test_a_broken_file_needs_an_import_to_report_it(tmp_path):
    (tmp_path / "x.py").write_text("def extend_cfg(cfg:\n")
    with pytest.raises(NotDeclared):
        declare_keys(CfgNode(), tmp_path)
    with pytest.raises(NotDeclared):
        registered_names(tmp_path)


@pytest.mark.parametrize(
    "text", ["from my_methods import Method", "import my_methods.method", "from .base import extend_cfg"]
)
def test_keys_possibly_declared_elsewhere_need_an_import(tmp_path, text):
    (tmp_path / "x.py").write_text(text)
    for read in (lambda: declare_keys(CfgNode(), tmp_path), lambda: registered_names(tmp_path)):
        with pytest.raises(NotDeclared):
            read()
