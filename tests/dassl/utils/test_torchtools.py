"""Checkpoint files, and small operations on modules."""

import pickle

import pytest
import torch
from hostile import Calls
from torch import nn

from basics import MissingFile, UserError
from dassl.utils import (
    count_num_param,
    init_network_weights,
    load_checkpoint,
    load_pretrained_weights,
    open_all_layers,
    open_specified_layers,
    resume_from_checkpoint,
    save_checkpoint,
)


def test_a_checkpoint_is_written_in_the_layout_of_the_family(tmp_path, capsys):
    save_checkpoint({"state_dict": {"module.ctx": torch.ones(2)}, "epoch": 3}, tmp_path)
    assert (tmp_path / "checkpoint").read_text() == "model.pth.tar-3\n"
    assert load_checkpoint(tmp_path / "model.pth.tar-3")["state_dict"]["ctx"].tolist() == [1.0, 1.0]
    assert "Checkpoint saved to" in capsys.readouterr().out


def test_the_best_model_has_a_file_of_its_own(tmp_path):
    save_checkpoint({"state_dict": {}, "epoch": 1}, tmp_path, is_best=True)
    assert load_checkpoint(tmp_path / "model-best.pth.tar")["epoch"] == 1
    save_checkpoint({"state_dict": {}, "epoch": 2}, tmp_path, model_name="model-best.pth.tar")
    assert (tmp_path / "checkpoint").read_text() == "model-best.pth.tar\n"


def test_training_resumes_from_the_last_checkpoint(tmp_path):
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    save_checkpoint({"state_dict": model.state_dict(), "epoch": 4, "optimizer": optimizer.state_dict()}, tmp_path)
    resumed = torch.optim.SGD(other.parameters(), lr=0.1)
    assert resume_from_checkpoint(tmp_path, other, resumed) == 4
    assert torch.equal(other.weight, model.weight)
    assert resumed.param_groups[0]["lr"] == 0.5


def test_a_pointer_to_nothing_or_out_of_its_folder_is_refused(tmp_path):
    folder = tmp_path / "prompt_learner"
    folder.mkdir()
    with pytest.raises(MissingFile, match="checkpoint: expected a file with the name"):
        resume_from_checkpoint(folder, nn.Linear(1, 1))
    torch.save({}, tmp_path / "outside")
    (folder / "checkpoint").write_text("../outside\n")
    with pytest.raises(MissingFile, match="expected the name of an existing file, got outside"):
        resume_from_checkpoint(folder, nn.Linear(1, 1))


@pytest.mark.parametrize("content", ["empty", "garbage", "cut off", "pickle", "object"])
def test_a_damaged_or_foreign_file_is_named_and_nothing_in_it_is_executed(tmp_path, content, capsys):
    path = tmp_path / "model.pth.tar-1"
    torch.save({"state_dict": {"ctx": torch.ones(100)}}, path)
    if content == "object":
        torch.save({"scheduler": Calls(print, "executed")}, path)
    else:
        whole = path.read_bytes()
        pickled = pickle.dumps(Calls(print, "executed"))
        path.write_bytes({"empty": b"", "garbage": b"x" * 99, "cut off": whole[:-200], "pickle": pickled}[content])
    with pytest.raises(UserError, match=r"model\.pth\.tar-1: expected a checkpoint, got another file: "):
        load_checkpoint(path)
    assert "executed" not in capsys.readouterr().out


def test_no_path_and_no_file_are_different_errors(tmp_path):
    with pytest.raises(ValueError, match="File path is None"):
        load_checkpoint(None)
    with pytest.raises(FileNotFoundError, match="expected a checkpoint file, got nothing"):
        load_checkpoint(tmp_path / "x")


def test_pretrained_weights_are_loaded_where_they_fit(tmp_path, capsys):
    model = nn.Linear(2, 2)
    torch.save({"module.weight": torch.ones(2, 2), "bias": torch.ones(3), "other": torch.ones(1)}, tmp_path / "w.pt")
    load_pretrained_weights(model, tmp_path / "w.pt")
    assert model.weight.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert "does not match: bias, other" in capsys.readouterr().err
    torch.save({"other": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.warns(UserWarning, match="Cannot load"):
        load_pretrained_weights(model, tmp_path / "w.pt")


def test_parameters_are_counted_in_modules_lists_and_groups():
    model = nn.Linear(2, 3)
    assert count_num_param(model) == 9
    assert count_num_param(params=model.parameters()) == 9
    assert count_num_param(params=[{"params": [model.weight]}]) == 6
    with pytest.raises(ValueError, match="got neither"):
        count_num_param()


def test_only_the_opened_layers_are_trained():
    model = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    open_specified_layers(model, "b")
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    assert (model["a"].training, model["b"].training) == (False, True)
    open_all_layers(model)
    assert all(p.requires_grad for p in model.parameters()) and model["a"].training
    with pytest.raises(ValueError, match='expected a child .*got "c"'):
        open_specified_layers(model, ["c"])


@pytest.mark.parametrize("scheme", ["normal", "xavier", "kaiming", "orthogonal"])
def test_weights_are_random_and_biases_are_zero(scheme):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = model[0].weight.clone()
    init_network_weights(model, scheme)
    assert not torch.equal(model[0].weight, before)
    assert model[0].bias.count_nonzero() == 0
    assert model[1].weight.tolist() == [1.0, 1.0, 1.0]


def test_an_unknown_initialization_is_refused():
    with pytest.raises(ValueError, match="expected one of normal"):
        init_network_weights(nn.Linear(1, 1), "uniform")
