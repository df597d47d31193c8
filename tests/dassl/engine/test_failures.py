"""Memory that ran out and workers that died are told with what helps."""

import pytest
import torch

from dassl.config import get_cfg_default, merge
from dassl.engine import explained
from dassl.engine.failures import OutOfMemory
from dassl.utils import UserError


@pytest.fixture
def cfg():
    cfg = get_cfg_default()
    merge(cfg, opts=["DATALOADER.NUM_WORKERS", "1", "DATALOADER.TRAIN_X.BATCH_SIZE", "7"])
    return cfg


class Failing(torch.utils.data.Dataset):
    def __init__(self, fail):
        self.fail = fail

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.fail()


def allocate_too_much():
    return torch.empty(2**60)


def no_memory():
    raise MemoryError


def out_of_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("fail", [allocate_too_much, no_memory, out_of_gpu_memory])
@pytest.mark.parametrize("workers", [0, 1])
def test_out_of_memory_names_the_settings_that_help(cfg, fail, workers):
    cfg.TRAINER.NAME = "Mine"
    cfg.TRAINER.MINE = type(cfg)({"PREC": "fp32"})
    with pytest.raises(OutOfMemory, match="^out of memory: ") as error, explained(cfg):
        next(iter(torch.utils.data.DataLoader(Failing(fail), num_workers=workers)))
    told = str(error.value)
    assert "DATALOADER.TRAIN_X.BATCH_SIZE is 7: smaller" in told and "DATALOADER.NUM_WORKERS is 1: fewer" in told
    assert "TRAINER.MINE.PREC is 'fp32': fp16" in told and "The same command goes on" in told


def test_a_worker_that_died_is_told_wherever_torch_raises_it(cfg):
    with pytest.raises(UserError, match="a worker process that loads images is gone: .*signal: Killed"), explained(cfg):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")  # in the midst of a step


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), UserError("out of memory"), KeyError("x")])
def test_other_errors_pass_as_they_are(cfg, error):
    with pytest.raises(type(error)) as raised, explained(cfg):
        raise error
    assert raised.value is error
