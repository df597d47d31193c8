"""Out-of-memory errors and dead workers are reported with advice."""

import os
import signal

import pytest
import torch

from basics import UserError
from dassl.config import get_cfg_default, merge
from dassl.engine import explain_failures
from dassl.engine.failures import DeadWorker, OutOfMemory


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
    with pytest.raises(OutOfMemory, match="^out of memory: ") as error, explain_failures(cfg):
        next(iter(torch.utils.data.DataLoader(Failing(fail), num_workers=workers)))
    message = str(error.value)
    assert "DATALOADER.TRAIN_X.BATCH_SIZE is 7: smaller" in message and "DATALOADER.NUM_WORKERS is 1: fewer" in message
    assert "TRAINER.MINE.PREC is 'fp32': fp16" in message and "Run the same command to resume" in message


def exit_at_once():
    os._exit(3)


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("fail", "cause"), [(be_killed, "it was killed from outside"), (exit_at_once, "it ended without a")]
)
def test_a_dead_worker_is_reported_with_its_cause(cfg, fail, cause):
    message = rf"a data worker died \(process \d+\): {cause}.*NUM_WORKERS is 1"
    with pytest.raises(DeadWorker, match=message), explain_failures(cfg):
        next(iter(torch.utils.data.DataLoader(Failing(fail), num_workers=1)))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Bus error. ", r"process 7\): shared memory ran out"),
        ("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ", "ended by Segmentation fault"),
    ],
)
def test_other_worker_failures_are_distinguished(cfg, text, cause):
    with pytest.raises(DeadWorker, match=cause), explain_failures(cfg):
        raise RuntimeError(text)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), UserError("out of memory"), KeyError("x")])
def test_other_errors_pass_unchanged(cfg, error):
    with pytest.raises(type(error)) as raised, explain_failures(cfg):
        raise error
    assert raised.value is error
