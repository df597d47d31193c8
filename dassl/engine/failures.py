"""What can go wrong around a run, told with what helps."""

import re
from contextlib import contextmanager

import torch

from dassl.config import flatten
from dassl.data import dead_worker
from dassl.utils import UserError

# The keys that decide how much memory is needed, with what to do about them.
MEMORY_KEYS = {
    "DATALOADER.TRAIN_X.BATCH_SIZE": "smaller, if it happened in training (this changes the numbers)",
    "DATALOADER.TEST.BATCH_SIZE": "smaller, if it happened in a test",
    "MODEL.TEXT_BLOCK": "smaller: fewer classes at a time, same numbers",
    "DATALOADER.NUM_WORKERS": "fewer, if it is the machine's memory that ran out",
}
OUT_OF_MEMORY = re.compile(r"out of memory|ALLOC_FAILED|(can't|cannot) allocate memory|not enough memory", re.I)


class OutOfMemory(UserError):
    """The GPU's or the machine's memory ran out."""


@contextmanager
def explained(cfg):
    """Inside, memory that ran out and data workers that died become a UserError that says what helps."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        explanation = explain(error, cfg)
        if explanation is None:
            raise
        raise explanation from error


def explain(error, cfg):
    """The UserError that explains `error` (an exception); None: it is of another kind."""
    if isinstance(error, UserError):
        return None
    if (worker := dead_worker(error)) is not None:
        return worker
    text = str(error).strip()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or OUT_OF_MEMORY.search(text):
        return OutOfMemory(f"out of memory: {_last_line(text) or type(error).__name__}\n{_advice(cfg)}")
    return None


def _advice(cfg):
    here = flatten(cfg)
    lines = [f"{key} is {here[key]!r}: {advice}" for key, advice in MEMORY_KEYS.items() if key in here]
    precision = f"TRAINER.{cfg.TRAINER.NAME.upper()}.PREC"
    if here.get(precision) == "fp32":
        lines.append(f"{precision} is 'fp32': fp16, bf16 or amp take about half on a GPU (this changes the numbers)")
    return "\n".join(
        ["What helps:", *(f"  {line}" for line in lines), "The same command goes on from the last saved state"]
    )


def _last_line(text):
    return text.splitlines()[-1] if text.startswith("Caught ") else text.partition("\n")[0]
