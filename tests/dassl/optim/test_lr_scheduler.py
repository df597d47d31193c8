"""Learning rates, against those of the original implementation, epoch for epoch."""

import io
import json
from pathlib import Path

import pytest
import torch

from basics import UserError
from dassl.config import get_cfg_default, merge
from dassl.optim import build_lr_scheduler, build_optimizer

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "lr_golden.json").read_text())
GOLDEN.pop("_about")


def optim_cfg(*opts):
    cfg = get_cfg_default()
    merge(cfg, opts=opts)
    return cfg.OPTIM


def build(cfg):
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(1, 1), "classifier": torch.nn.Linear(1, 1)})
    optimizer = build_optimizer(model, cfg)
    return optimizer, build_lr_scheduler(optimizer, cfg)


def rates(optimizer):
    lrs = [group["lr"] for group in optimizer.param_groups]
    return lrs if len(lrs) > 1 else lrs[0]


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", GOLDEN)
def test_every_epoch_has_the_rate_of_the_original(name):
    golden = GOLDEN[name]
    cfg = optim_cfg(*(word for pair in golden["config"].items() for word in pair))
    optimizer, scheduler = build(cfg)
    assert type(optimizer).__name__ == golden["optimizer"]
    defaults = {key: list(v) if isinstance(v, tuple) else v for key, v in optimizer.defaults.items()}
    assert golden["optimizer_defaults"].items() <= defaults.items()
    found = []
    for _ in golden["lr_per_epoch"]:
        found.append(rates(optimizer))
        optimizer.step()
        scheduler.step()
    assert found == golden["lr_per_epoch"]
    assert rates(optimizer) == golden["lr_after_last_step"]


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_the_rates_continue_after_saving_and_loading(name, stop):
    golden = GOLDEN[name]
    cfg = optim_cfg(*(word for pair in golden["config"].items() for word in pair))
    optimizer, scheduler = build(cfg)
    for _ in range(stop):
        optimizer.step()
        scheduler.step()
    optimizer_state, scheduler_state = saved_and_loaded((optimizer.state_dict(), scheduler.state_dict()))
    optimizer, scheduler = build(cfg)
    optimizer.load_state_dict(optimizer_state)
    scheduler.load_state_dict(scheduler_state)
    found = []
    for _ in golden["lr_per_epoch"][stop:]:
        found.append(rates(optimizer))
        optimizer.step()
        scheduler.step()
    assert found == golden["lr_per_epoch"][stop:]
    assert rates(optimizer) == golden["lr_after_last_step"]


def test_a_second_schedule_on_one_optimizer_gives_a_warning():
    cfg = optim_cfg()
    optimizer, _ = build(cfg)
    with pytest.warns(UserWarning, match="already has a learning-rate schedule"):
        build_lr_scheduler(optimizer, cfg)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("OPTIM.LR_SCHEDULER", "cosin"), "expected one of single_step, multi_step, cosine, got 'cosin'"),
        (("OPTIM.WARMUP_EPOCH", 1, "OPTIM.WARMUP_TYPE", "exp"), "expected one of linear, constant, got 'exp'"),
    ],
)
def test_an_unknown_schedule_is_refused_with_the_choices(opts, message):
    with pytest.raises(UserError, match=message):
        build(optim_cfg(*opts))


def test_multi_step_needs_a_list_of_epochs():
    cfg = optim_cfg("OPTIM.LR_SCHEDULER", "multi_step")
    cfg.STEPSIZE = 3
    with pytest.raises(UserError, match="expected a list of epochs for multi_step"):
        build(cfg)
