"""Frozen linear maps: oneDNN and torch agree, and one place decides between them."""

import pytest
import torch
import torch.nn.functional as F

from basics import cache_dir
from clip import linear
from clip.linear import Linear

needs_onednn = pytest.mark.skipif(not linear.available(), reason="this torch has no oneDNN operator for linear maps")


@pytest.fixture(autouse=True)
def library(monkeypatch):
    monkeypatch.setattr(linear, "_library", "torch")


def tensor(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


INPUTS = {
    "packed rows": tensor(1, 50, 48),
    "images": tensor(1, 3, 17, 48),
    "images and classes": tensor(1, 2, 3, 5, 48),
    "one token": tensor(1, 48),
    "nothing": tensor(1, 4, 0, 48),
    "transposed": tensor(1, 17, 3, 48).transpose(0, 1),
    "expanded": tensor(1, 1, 5, 48).expand(4, 5, 48),
    "a slice": tensor(1, 4, 10, 48)[:, 2:5],
}


@needs_onednn
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("rows", [slice(0, 144), slice(48, 144)], ids=["queries, keys, values", "keys, values"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_onednn_matches_torch_in_values_and_input_gradients(x, rows, with_bias):
    weight, bias = tensor(2, 144, 48)[rows], tensor(3, 144)[rows] if with_bias else None
    results = []
    for library in linear.LIBRARIES:
        linear.use(library)
        own = x.detach().clone().as_strided(x.size(), x.stride()) if x.is_contiguous() else x.detach()
        own = own.requires_grad_()
        y = linear.linear(own, weight, bias)
        (grad,) = torch.autograd.grad((y * y).sum(), own)
        results.append((y.detach(), grad))
    for theirs, ours in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


@needs_onednn
@pytest.mark.parametrize("case", ["frozen", "trained weight", "trained bias", "bfloat16", "float64", "autocast"])
def test_only_frozen_float32_maps_go_through_onednn(case, monkeypatch):
    calls = []
    apply = linear._OneDNNLinear.apply
    monkeypatch.setattr(linear._OneDNNLinear, "apply", lambda *inputs: calls.append(1) or apply(*inputs))
    linear.use("onednn")
    module, x = Linear(8, 4).requires_grad_(False), tensor(1, 3, 8)
    module.weight.requires_grad_(case == "trained weight")
    module.bias.requires_grad_(case == "trained bias")
    dtype = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(case, torch.float32)
    with torch.autocast("cpu", enabled=case == "autocast"):
        module.to(dtype)(x.to(dtype))
    assert bool(calls) == (case == "frozen")


@needs_onednn
def test_gradients_pass_through_checkpointed_towers(small_clip):
    from torch.utils.checkpoint import checkpoint

    from clip import Segment

    grads = []
    for library in linear.LIBRARIES:
        linear.use(library)
        x = tensor(4, 2, 5, 16).requires_grad_()

        def run(x):
            return small_clip.transformer({"x": Segment(x, attends_to=("x",))})["x"]

        checkpoint(run, x, use_reentrant=False).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


def test_a_torch_without_the_operator_falls_back_with_a_note(monkeypatch, capsys):
    monkeypatch.setattr(linear, "available", lambda: False)
    assert linear.use("onednn") == "torch"
    assert "MODEL.LINEAR onednn: torch" in capsys.readouterr().err
    assert torch.equal(linear.linear(tensor(1, 2, 3), tensor(2, 4, 3)), F.linear(tensor(1, 2, 3), tensor(2, 4, 3)))


def test_the_decision_is_made_once_per_machine_and_shared(monkeypatch, tmp_path):
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path))
    monkeypatch.setattr(linear, "available", lambda: True)
    decisions = iter(["onednn", "torch"])
    monkeypatch.setattr(linear, "_time", lambda towers: next(decisions))
    assert linear.faster([(10, 16)]) == linear.faster([(10, 16)]) == "onednn"
    assert linear.faster([(10, 32)]) == "torch"  # another model is another question
    assert len(list(cache_dir("linear").iterdir())) == 2


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path / "file"))
    assert linear.faster([(4, 16)]) in linear.LIBRARIES
