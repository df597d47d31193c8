"""One run on several processes, on torch.distributed: `torchrun --nproc-per-node G train.py ...`.

The images of each batch and the class texts are split over the processes; everything else is the same in all of them.

Gradients are exact. Let process r have n_r of the N images of a batch, with the mean loss L_r over them. The loss of
the batch is L = sum_r (n_r / N) L_r, for any n_r, also if parts of L_r do not depend on the images. So each process
weighs its loss by n_r / N, and the gradients are summed (`sum_gradients`). The text features F are computed in parts
F_r, each by one process, and joined (`gather`). The gradient of F_r is the sum of what all processes compute for it,
and from there on process r alone continues; the sum of the gradients then is that of L.

Only the first process writes to the output folder. The others work in a folder of their own, which is deleted.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import BatchSampler

from basics import UserError
from dassl.engine.state import STATE_FILE

PATIENCE = timedelta(minutes=10)  # in which all processes reach the same point


def requested() -> bool:
    """Return whether torchrun has started several processes.

    Raises:
        UserError: its environment variables are incomplete or contradict each other.
    """
    given = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    if given["WORLD_SIZE"] is None and given["RANK"] is None:
        return False
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: expected the environment variables that torchrun sets, got none. Start the run as "
            "torchrun --nproc-per-node G train.py ..., or unset RANK and WORLD_SIZE."
        )
    return int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined(cfg) -> Iterator[None]:
    """Join the processes of torchrun, if there are several; all but the first get a folder of their own.

    Raises:
        UserError: there are fewer GPUs here than processes.
    """
    if not requested():
        yield
        return
    local, gpu = int(os.environ["LOCAL_RANK"]), torch.cuda.is_available() and cfg.USE_CUDA
    if gpu and local >= torch.cuda.device_count():
        raise UserError(
            f"--nproc-per-node: expected at most {torch.cuda.device_count()} processes, one for each GPU, got "
            f"{os.environ.get('LOCAL_WORLD_SIZE', local + 1)}. Start fewer, or add --device cpu."
        )
    if gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE)
    try:
        with _elsewhere(cfg) if rank() else nullcontext():
            yield
        dist.barrier()  # none leaves while another may still need it
    finally:
        dist.destroy_process_group()


@contextmanager
def _elsewhere(cfg) -> Iterator[None]:
    """Let this process work silently in a temporary folder, and resume from the run's own."""
    with tempfile.TemporaryDirectory(prefix="dassl-process-") as folder, open(os.devnull, "w") as nowhere:
        cfg.defrost()
        if (Path(cfg.OUTPUT_DIR) / STATE_FILE).is_file():
            cfg.RESUME = cfg.OUTPUT_DIR
        cfg.OUTPUT_DIR = folder
        cfg.freeze()
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(n: int) -> slice:
    """Return which of n things are this process's. If n does not divide, the first processes have one more."""
    each, more = divmod(n, size())
    first = rank() * each + min(rank(), more)
    return slice(first, first + each + (rank() < more))


def check_method(trainer) -> str:
    """Return why a run cannot be split over processes; empty if it can."""
    cfg, name = trainer.cfg, trainer.cfg.TRAINER.NAME
    if not trainer.for_this_engine or trainer.needs_whole_batches():
        kind = "needs all images of a batch in one" if trainer.for_this_engine else "is not written for this engine"
        return (
            f"TRAINER.NAME: expected a method that can share its batches between processes, got {name}, which {kind}. "
            "Start one process."
        )
    train = cfg.TRAIN
    if train.MIXUP or train.CUTMIX or train.CLASS_WEIGHTS != "none":
        return (
            "TRAIN.MIXUP, TRAIN.CUTMIX, TRAIN.CLASS_WEIGHTS: expected 0, 0, and none with several processes, because "
            f"they need a whole batch, got {train.MIXUP}, {train.CUTMIX}, and {train.CLASS_WEIGHTS}. Start one process."
        )
    return ""


def check_batches(loader) -> None:
    """Refuse training batches with fewer images than processes.

    Raises:
        UserError: says how many there are.
    """
    images = loader.batch_sampler.whole(0)
    if images < size():
        raise UserError(
            f"DATALOADER.TRAIN_X.BATCH_SIZE: expected at least {size()} images in a batch, one for each process, got "
            f"{images}. Start fewer processes, or use larger batches."
        )


class SharedBatches(BatchSampler):
    """This process's share of each batch. A share is never empty: a test batch with too few images repeats one."""

    def __iter__(self):
        for batch in super().__iter__():
            yield batch[share(len(batch))] or batch[-1:]

    def whole(self, number: int) -> int:
        """Return the number of images of a whole batch, counted from 0."""
        n = len(self.sampler)  # type: ignore[arg-type]
        return min(self.batch_size, n - number * self.batch_size)


def total(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes.

    Raises:
        UserError: another process has ended.
    """
    value = value.clone()
    try:
        dist.all_reduce(value)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"process {rank()}: expected all processes to continue, but one has ended ({reason}). See its message, and "
            "run the same command to resume."
        ) from error
    return value


def weighted_means(summary: dict | None, share_of_batch: float) -> dict | None:
    """Return what a step reports of the whole batch: the means over the processes, by their shares of the images."""
    if not summary:
        return summary
    device = next((value.device for value in summary.values() if isinstance(value, Tensor)), None)
    values = [torch.as_tensor(value, dtype=torch.float64, device=device).reshape(()) for value in summary.values()]
    return dict(zip(summary, total(share_of_batch * torch.stack(values)).float(), strict=True))


def sum_gradients(parameters) -> None:
    """Replace gradients by their sums over all processes, in place."""
    for p in parameters:
        if p.grad is not None:
            p.grad.copy_(total(p.grad))


def any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process."""
    if size() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return bool(total(torch.tensor(float(flag), device=device)))


def join_rows(own: Tensor, n: int) -> Tensor:
    """Join the rows of all processes: this process's `share` of n rows (or more, which do not count) -> n rows."""
    mine = share(n)
    rows = own.new_zeros(n, *own.shape[1:])
    rows[mine] = own[: mine.stop - mine.start]
    return total(rows)


class _Gather(torch.autograd.Function):
    """`join_rows` with gradients."""

    @staticmethod
    def forward(ctx, own: Tensor, n: int) -> Tensor:
        return join_rows(own, n)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return total(grad.contiguous())[share(len(grad))], None


def gather(own: Tensor, n: int) -> Tensor:
    """Join the rows of all processes (`share` of n each) with gradients: (n_r, ...) -> (n, ...)."""
    return _Gather.apply(own, n)
