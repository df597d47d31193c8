"""What trainer files declare is read from their text, or the file is imported."""

from pathlib import Path

import pytest
from yacs.config import CfgNode

import trainers
from dassl.config import get_cfg_default
from dassl.config.declared import NotDeclared, declare_keys, registered_names
from dassl.engine import TRAINER_REGISTRY

FOLDER = Path(trainers.__file__).parent


def test_reading_the_methods_declares_the_same_keys_as_importing_them():
    read, imported = get_cfg_default(), get_cfg_default()
    declare_keys(read, FOLDER)
    trainers.extend_cfg(imported)
    assert read == imported


def test_the_names_read_are_the_registered_ones():
    ours = [
        name
        for name in TRAINER_REGISTRY.registered_names()
        if TRAINER_REGISTRY.get(name).__module__.startswith("trainers.")
    ]
    assert registered_names(FOLDER) == sorted(ours)  # other tests register toy methods


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
