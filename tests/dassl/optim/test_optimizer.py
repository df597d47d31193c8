"""Optimizers by name, and their settings."""

import pytest
import torch
from torch import nn

from basics import UserError
from dassl.config import get_cfg_default, merge
from dassl.optim import build_optimizer
from dassl.optim.radam import RAdam


def optim_cfg(*opts):
    cfg = get_cfg_default()
    merge(cfg, opts=opts)
    return cfg.OPTIM


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", torch.optim.Adam),
        ("amsgrad", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
        ("radam", RAdam),
        ("adamw", torch.optim.AdamW),
    ],
)
def test_each_name_gives_its_optimizer_with_the_weight_decay(name, kind):
    optimizer = build_optimizer(nn.Linear(2, 2), optim_cfg("OPTIM.NAME", name))
    assert type(optimizer) is kind
    assert optimizer.defaults["weight_decay"] == 5e-4
    assert optimizer.defaults.get("amsgrad", False) == (name == "amsgrad")


def test_eps_reaches_adam():
    assert build_optimizer(nn.Linear(2, 2), optim_cfg("OPTIM.EPS", "1e-3")).defaults["eps"] == 1e-3


def test_an_unknown_optimizer_is_refused_with_the_choices():
    with pytest.raises(UserError, match="OPTIM.NAME: expected .*adamw, got 'sdg'"):
        build_optimizer(nn.Linear(2, 2), optim_cfg("OPTIM.NAME", "sdg"))


def test_frozen_parameters_are_passed_on_and_stay_unchanged():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    before = model.bias.clone()
    optimizer = build_optimizer(model, optim_cfg("OPTIM.NAME", "sgd"))
    assert len(optimizer.param_groups[0]["params"]) == 2
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(model.bias, before)


def test_a_list_of_parameters_is_accepted():
    weight = nn.Parameter(torch.ones(2))
    assert build_optimizer([weight], optim_cfg()).param_groups[0]["params"] == [weight]


def test_new_layers_learn_at_the_full_rate_and_the_rest_at_a_share():
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    cfg = optim_cfg("OPTIM.STAGED_LR", "True", "OPTIM.NEW_LAYERS", "['head']", "OPTIM.LR", "0.5")
    base, new = build_optimizer(model, cfg).param_groups
    assert (base["lr"], new["lr"]) == (0.05, 0.5)
    assert base["params"] == list(model["backbone"].parameters())
    cfg.NEW_LAYERS = "nose"
    with pytest.raises(UserError, match="expected children of the model out of backbone, head, got nose"):
        build_optimizer(model, cfg)


def test_given_groups_override_staged_rates():
    model = nn.Linear(2, 2)
    cfg = optim_cfg("OPTIM.STAGED_LR", "True")
    with pytest.warns(UserWarning, match="STAGED_LR is ignored"):
        optimizer = build_optimizer(model, cfg, param_groups=[{"params": [model.weight], "lr": 1.0}])
    assert optimizer.param_groups[0]["lr"] == 1.0
