"""Failures of the machine, explained with advice."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from basics import UserError
from dassl.config import flatten

# The keys that decide how much memory is needed, with what to do about them.
MEMORY_KEYS = {
    "DATALOADER.TRAIN_X.BATCH_SIZE": "smaller, if it happened in training (this changes the numbers)",
    "DATALOADER.TEST.BATCH_SIZE": "smaller, if it happened in a test",
    "MODEL.TEXT_BLOCK": "a number below that of the class texts (0 keeps all); same numbers, more time",
    "MODEL.TEXT_MEMORY": "smaller, so that RPO computes its frozen words in every step; same numbers, more time",
    "DATALOADER.NUM_WORKERS": "fewer, if the machine's own memory ran out",
}
OUT_OF_MEMORY = re.compile(r"out of memory|ALLOC_FAILED|(can't|cannot) allocate memory|not enough memory", re.I)
DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
RESUMES = "Run the same command to resume from the last saved state"


class OutOfMemory(UserError):
    """The GPU's or the machine's memory ran out."""


class DeadWorker(UserError):
    """A process that loads images ended too early."""


@contextmanager
def explain_failures(cfg) -> Iterator[None]:
    """Turn out-of-memory errors and dead data workers into a UserError with advice."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        explanation = explain(error, cfg)
        if explanation is None:
            raise
        raise explanation from error


def explain(error: BaseException, cfg) -> UserError | None:
    """Return the UserError that explains `error`; None if it is of another kind."""
    if isinstance(error, UserError):
        return None
    text = str(error).strip()
    if worker := DEAD_WORKER.search(text):
        return _dead_worker(worker[1], error, cfg)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or OUT_OF_MEMORY.search(text):
        return OutOfMemory(f"out of memory: {_main_line(text) or type(error).__name__}\n{_advice(cfg)}")
    return None


def _dead_worker(pids: str, error: BaseException, cfg) -> DeadWorker:
    text = "\n".join(_chain(error))  # the signal may be named in an earlier error of the chain
    killed = re.search(r"is killed by signal: (\w[\w ]*)", text)
    signal = killed[1] if killed else ""
    if "shared memory" in text or signal == "Bus error":
        cause = "shared memory ran out; enlarge /dev/shm (docker run --shm-size), or load without workers"
    elif signal == "Killed":
        cause = "it was killed from outside, by the system itself if memory ran out"
    elif signal:
        cause = f"it was ended by {signal}"
    else:
        cause = "it ended without a message to the run; see above for its own output"
    return DeadWorker(
        f"a data worker died (process {pids}): {cause}. DATALOADER.NUM_WORKERS is {cfg.DATALOADER.NUM_WORKERS}; fewer "
        f"need less memory, 0 loads in the main process. The numbers stay the same. {RESUMES}."
    )


def _chain(error: BaseException | None) -> Iterator[str]:
    """Yield the texts of an error and of those that it was raised from."""
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def _advice(cfg) -> str:
    values = flatten(cfg)
    lines = [f"{key} is {values[key]!r}: {advice}" for key, advice in MEMORY_KEYS.items() if key in values]
    precision = f"TRAINER.{cfg.TRAINER.NAME.upper()}.PREC"
    if values.get(precision) == "fp32":
        lines.append(f"{precision} is 'fp32': fp16, bf16 or amp need about half on a GPU (this changes the numbers)")
    return "\n".join(["What helps:", *(f"  {line}" for line in lines), RESUMES])


def _main_line(text: str) -> str:
    return text.splitlines()[-1] if text.startswith("Caught ") else text.partition("\n")[0]
