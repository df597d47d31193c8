"""Tensors of whole models find their places in a module that is a part of it; nothing is skipped silently."""

import re

import pytest
import torch
from original_files import original_checkpoint, write_original
from torch import nn

from basics import UserError
from dassl.engine.checkpoints import class_dependent, load_model_file, load_trained


class Learner(nn.Module):
    """`ctx`, and a prompt that stands in a tower; the backbone next to it is declared, not owned."""

    def __init__(self):
        super().__init__()
        self.ctx = nn.Parameter(torch.zeros(2, 3))
        self.image_encoder = nn.Module()
        self.image_encoder.VPT = nn.Parameter(torch.zeros(4))
        self.backbone_shapes = {"image_encoder.proj": (3, 3), "logit_scale": ()}


def whole(**changes):
    state = {
        "prompt_learner.ctx": torch.arange(6.0).reshape(2, 3),
        "prompt_learner.token_prefix": torch.ones(9, 1, 3),
        "prompt_learner.token_midfix": torch.ones(9, 1, 3),
        "prompt_learner.token_suffix": torch.ones(9, 70, 3),
        "image_encoder.VPT": torch.ones(4),
        "image_encoder.proj": torch.ones(3, 3),
        "logit_scale": torch.tensor(4.6),
    }
    return {key: value for key, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_whole_model_brings_its_prompts_and_the_rest_is_counted(capsys, prefix):
    module = Learner()
    tensors = {prefix + key: tensor for key, tensor in whole().items()}
    load_trained(module, tensors, "file", ignored=class_dependent(module))
    assert module.ctx.tolist() == [[0, 1, 2], [3, 4, 5]] and module.image_encoder.VPT.tolist() == [1] * 4
    assert capsys.readouterr().out == 'Skipped 2 tensors of the frozen backbone in "file"\n'


DEEPER = "image_encoder.transformer.resblocks.5.VPT_shallow"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_learner.ctx": None}, r"^ctx: expected shape \(2, 3\), got nothing"),
        ({"prompt_learner.ctx": torch.ones(3, 3)}, r"^prompt_learner\.ctx: expected shape \(2, 3\), got \(3, 3\)"),
        ({"image_encoder.VPT": None}, r"^image_encoder\.VPT: expected shape \(4,\), got nothing"),
        ({DEEPER: torch.ones(4)}, r"5\.VPT_shallow: expected no tensor of this name, got shape \(4,\)"),
        (
            {"prompt_learner.proj": torch.ones(1)},
            r"^prompt_learner\.proj: expected no tensor of this name, got shape \(1,\)",
        ),
        ({"image_encoder.proj": torch.ones(4, 4)}, r"^image_encoder\.proj: expected shape \(3, 3\), got \(4, 4\)"),
        ({"ctx": torch.ones(2, 3)}, r"^ctx: expected one tensor ctx, got two"),
        (
            {"prompt_learner.ctx": torch.full((2, 3), torch.nan)},
            r"^prompt_learner\.ctx: expected finite numbers, got NaN",
        ),
        (
            {"prompt_learner.ctx": torch.full((2, 3), torch.inf)},
            r"^prompt_learner\.ctx: expected finite numbers, got NaN",
        ),
        ({"prompt_learner.ctx": torch.ones(2, 3).long()}, r"^prompt_learner\.ctx: expected torch\.float32, got tor"),
    ],
)
def test_mismatches_are_named_and_nothing_is_loaded(changes, message):
    module = Learner()
    with pytest.raises(UserError, match="file: expected the tensors of this model, got others") as info:
        load_trained(module, whole(**changes), "file", ignored=class_dependent(module))
    (line,) = str(info.value).splitlines()[1:]
    assert re.search(message, line), line
    assert not module.ctx.any() and not module.image_encoder.VPT.any()


def test_a_backbone_that_is_not_declared_is_unknown():
    module = Learner()
    del module.backbone_shapes
    with pytest.raises(UserError, match="logit_scale: expected no tensor of this name"):
        load_trained(module, whole(), "file", ignored=class_dependent(module))


def test_a_module_may_have_the_prefixes_in_its_own_names():
    module = nn.ModuleDict({"prompt_learner": nn.Linear(1, 1, bias=False), "module": nn.Linear(1, 1, bias=False)})
    tensors = {"prompt_learner.weight": torch.full((1, 1), 2.0), "module.weight": torch.full((1, 1), 3.0)}
    load_trained(module, tensors, "file")
    assert (module["prompt_learner"].weight.item(), module["module"].weight.item()) == (2, 3)


def test_names_of_several_words_can_be_ignored():
    module = Learner()
    module.VPT_fc = nn.Linear(2, 2, bias=False)
    module.ignored_keys = ("VPT_fc.weight",)
    before = module.VPT_fc.weight.clone()
    module.weight = nn.Parameter(torch.zeros(1))
    tensors = whole(**{"prompt_learner.VPT_fc.weight": torch.ones(9, 2), "weight": torch.ones(1)})
    load_trained(module, tensors, "file", ignored=class_dependent(module))
    assert torch.equal(module.VPT_fc.weight, before) and module.weight.item() == 1


def test_half_precision_is_converted_to_the_modules_type(tmp_path):
    module = Learner()
    path = write_original(tmp_path / "x", {key: tensor.half() for key, tensor in whole().items()}, epoch=7)
    assert load_model_file(module, path) == (7, None)
    assert module.ctx.dtype == torch.float32 and module.ctx.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_bare_state_dict_is_accepted(tmp_path):
    torch.save(whole(), tmp_path / "a")
    module = Learner()
    assert load_model_file(module, tmp_path / "a") == (None, None)
    assert module.ctx.any()


@pytest.mark.parametrize(
    "changes",
    [
        {"state_dict": {"ctx": "text"}},
        {"state_dict": {"ctx": torch.ones(2, 3).to_sparse()}},
        {"state_dict": {"ctx": torch.ones(2, 3, device="meta")}},
        {"state_dict": {3: torch.ones(2, 3)}},
        {"epoch": "fifty"},
        {"val_result": [1]},
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_named(tmp_path, changes):
    torch.save({**original_checkpoint(whole()), "scheduler": None, **changes}, tmp_path / "a")
    with pytest.raises(UserError, match="a: expected a checkpoint|asks for .*sparse"):
        load_model_file(Learner(), tmp_path / "a")


def test_the_engine_loads_a_file_of_the_original(make, tmp_path, capsys):
    trainer = make()
    state = {
        "ctx": torch.ones(4, 3),
        "scale": torch.ones(1).half(),
        "steps": torch.tensor(9),
        "token_prefix": torch.ones(9),
    }
    write_original(tmp_path / "released" / "prompt_learner", state)
    assert trainer.load_model(tmp_path / "released", epoch=50) == 50
    assert trainer.load_model(tmp_path / "released") == 50
    assert torch.equal(trainer.model.ctx, state["ctx"]) and trainer.model.steps == 9
    assert "Loaded prompt_learner from" in capsys.readouterr().out
