"""What can go wrong around a run, told with what helps."""

import re
from contextlib import contextmanager

import torch

from basics import UserError
from dassl.config import flatten

# The keys that decide how much memory is needed, with what to do about them.
MEMORY_KEYS = {
    "DATALOADER.TRAIN_X.BATCH_SIZE": "smaller, if it happened in training (this changes the numbers)",
    "DATALOADER.TEST.BATCH_SIZE": "smaller, if it happened in a test",
    "MODEL.TEXT_BLOCK": "a number, smaller than that of the class texts (0 keeps all): same numbers, more time",
    "MODEL.TEXT_MEMORY": "smaller: RPO then computes its frozen words in every step, same numbers",
    "DATALOADER.NUM_WORKERS": "fewer, if it is the machine's memory that ran out",
}
OUT_OF_MEMORY = re.compile(r"out of memory|ALLOC_FAILED|(can't|cannot) allocate memory|not enough memory", re.I)
DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")


class OutOfMemory(UserError):
    """The GPU's or the machine's memory ran out."""


class DeadWorker(UserError):
    """A process that loads images ended before its time."""


@contextmanager
def explain_failures(cfg):
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
    text = str(error).strip()
    if DEAD_WORKER.search(text):
        return _dead_worker(error, cfg)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or OUT_OF_MEMORY.search(text):
        return OutOfMemory(f"out of memory: {_last_line(text) or type(error).__name__}\n{_advice(cfg)}")
    return None


def _dead_worker(error, cfg):
    texts = []
    while error is not None:  # which signal it was may stand in an error that this one was raised from
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    text = "\n".join(texts)
    pids, killer = DEAD_WORKER.search(text)[1], re.search(r"is killed by signal: (\w[\w ]*)", text)
    killer = killer and killer[1]
    if "shared memory" in text or killer == "Bus error":
        cause = "shared memory ran out; enlarge /dev/shm (docker run --shm-size), or load without workers"
    elif killer == "Killed":
        cause = "killed from outside, by the system itself if memory ran out"
    else:
        cause = f"ended by {killer}" if killer else "ended without a word; its own message, if any, stands above"
    workers = cfg.DATALOADER.NUM_WORKERS
    return DeadWorker(
        f"a data worker died (process {pids}): {cause}. DATALOADER.NUM_WORKERS is {workers}; fewer need less "
        "memory, 0 loads in the main process. The numbers stay the same, and the same command goes on from the last "
        "saved state"
    )


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
