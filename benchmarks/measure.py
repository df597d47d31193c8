"""Time, peak memory and counted work of a training step, and time of a test pass, on both paths in one run."""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Hashable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

import torch

from benchmarks.counting import counted
from benchmarks.methods import Case, Paths, build, frozen_clip, reference_images
from clip import linear
from dassl.utils import keep_freed_memory
from trainers.base import TOWER_DTYPES

# Losses of the two paths may differ by this, relatively: in float32 as the project promises; in half precision by a few
# roundings, which the two paths make at different places.
TOLERANCE, ROUNDINGS = 1e-4, 8
TEST_BATCH = 100


def tolerance(case: Case) -> float:
    dtype = torch.get_autocast_dtype(case.device) if case.prec == "amp" else TOWER_DTYPES[case.prec]
    return TOLERANCE if dtype == torch.float32 else ROUNDINGS * torch.finfo(dtype).eps


def autocast(case: Case) -> torch.autocast:
    return torch.autocast(case.device, enabled=case.prec == "amp")


def data(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(case.batch, device=case.device) % case.classes
    return reference_images(case.batch).to(case.device), labels


def loss_of(case: Case, paths: Paths, path: str) -> Callable[[], torch.Tensor]:
    """The training loss of a path, ready to be called."""
    images, labels = data(case)

    def loss() -> torch.Tensor:
        with autocast(case):
            return paths.losses[path](images, labels)

    return loss


def step(loss: Callable[[], torch.Tensor], learner: torch.nn.Module) -> torch.Tensor:
    """One training step; the loss."""
    learner.zero_grad()
    value = loss()
    value.backward()
    with torch.no_grad():
        for p in learner.parameters():
            if p.grad is not None:
                p -= 0.01 * p.grad
    return value.detach()


def seconds(device: str, call: Callable[[], object]) -> float:
    """How long a call takes; on a GPU by the device's own events."""
    if device != "cuda":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    call()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / 1000


def median_seconds(device: str, calls: dict[Hashable, Callable[[], object]], rounds: int) -> dict[Hashable, float]:
    """Of calls that take turns; the first round warms up."""
    times = {key: [] for key in calls}
    for _ in range(rounds + 1):
        for key, call in calls.items():
            times[key].append(seconds(device, call))
    return {key: statistics.median(found[1:]) for key, found in times.items()}


def memory_mib(device: str, peak: bool) -> float:
    """Memory in use, or its peak since `reset_peak`, in MiB: a GPU's by torch's count, else the process's."""
    if device == "cuda":
        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 2**20
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) / 1024  # stands there in KiB


def reset_peak(device: str) -> None:
    """Let the peak begin at what is in use now: what building the model took for a moment does not count."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux's way


def _alone(case: Case, path: str, threads: int, steps: int, answer) -> None:
    torch.set_num_threads(threads)
    paths = build(case)
    loss, learner = loss_of(case, paths, path), paths.model.prompt_learner
    reset_peak(case.device)
    before = memory_mib(case.device, peak=False)
    times = [seconds(case.device, partial(step, loss, learner)) for _ in range(steps)]
    answer.put((memory_mib(case.device, peak=True) - before, times[-1]))


def memory(case: Case, path: str, threads: int) -> float:
    """MiB at the peak of a step above what the model takes, in a process of its own."""
    return alone(case, path, threads, 1)[0]


def alone(case: Case, path: str, threads: int, steps: int) -> tuple[float, float]:
    """MiB at the peak of some steps above what the model takes, and the last one's seconds, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    child = context.Process(target=_alone, args=(case, path, threads, steps, answer))
    child.start()
    while answer.empty() and child.is_alive():
        child.join(timeout=0.1)
    child.join()
    if child.exitcode:
        why = "was killed, most likely for want of memory" if child.exitcode == -9 else f"ended with {child.exitcode}"
        raise SystemExit(f"the {path} path at C = {case.classes} {why}")
    return answer.get()


def profile(case: Case, steps: int, threads: int) -> str:
    """Where the time of our step goes, as torch's profiler tells it."""
    torch.set_num_threads(threads)
    paths = build(case)
    loss, learner = loss_of(case, paths, case.how), paths.model.prompt_learner
    step(loss, learner)  # warms up
    with torch.profiler.profile() as profiler:
        for _ in range(steps):
            step(loss, learner)
    return profiler.key_averages().table(sort_by=f"self_{case.device}_time_total", row_limit=25)


def training_times(case: Case, names: tuple[str, ...], rounds: int) -> tuple[dict, dict]:
    """Median seconds and losses of some paths, which take turns on the same images from the same prompts."""
    paths = build(case)
    learner = paths.model.prompt_learner
    start = {k: v.clone() for k, v in learner.state_dict().items()}
    losses = {}

    def one_step(name: str) -> None:
        learner.load_state_dict(start)
        losses[name] = step(loss_of(case, paths, name), learner)

    times = median_seconds(case.device, {name: partial(one_step, name) for name in names}, rounds)
    return times, {name: value.item() for name, value in losses.items()}


def work_row(case: Case, threads: int) -> dict:
    """The counted work of our training step against its floor."""
    torch.set_num_threads(threads)
    paths = build(case)
    work = counted(loss_of(case, paths, "fast"))
    return {
        **described(case, threads),
        "GFLOP": work / 1e9,
        "floor GFLOP": paths.floor / 1e9,
        "of the floor": work / paths.floor,
    }


@cache
def peak_flops(threads: int) -> float:
    """The most float32 operations per second that this machine reaches in a linear map of ViT-B/16's MLP."""
    torch.set_num_threads(threads)
    x, weight = torch.ones(4 * 197, 768), torch.ones(3072, 768)
    before, best = linear.in_use(), float("inf")
    for library in linear.LIBRARIES * 10:
        linear.use(library)
        best = min(best, seconds("cpu", lambda: linear.linear(x, weight)))
    linear.use(before)
    return 2 * len(x) * weight.numel() / best


def training_row(case: Case, rounds: int, threads: int, plain_at: tuple[int, ...] = ()) -> dict:
    """One training step on both paths.

    Args:
        plain_at: two smaller numbers of classes at which the plain path runs, where it does not fit at `case.classes`:
            its time and memory are the line through them, and the losses are compared at the larger one.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    how, on_cpu = case.how, case.device == "cpu" and case.prec == "fp32"
    library = linear.use(linear.faster(frozen_clip(1, "cpu", torch.float32).tower_shapes()) if on_cpu else "torch")
    peaks = {"fast": memory(case, how, threads)}
    if not plain_at:
        peaks["plain"] = memory(case, "plain", threads)
        times, losses = training_times(case, ("plain", how), rounds)
    else:
        times, _ = training_times(case, (how,), rounds)
        points = [replace(case, classes=c) for c in plain_at]
        both = [training_times(points[0], ("plain",), rounds), training_times(points[1], ("plain", how), rounds)]
        losses = both[-1][1]
        times["plain"] = line(plain_at, [t["plain"] for t, _ in both], case.classes)
        peaks["plain"] = line(plain_at, [memory(point, "plain", threads) for point in points], case.classes)
    work, times["fast"] = work_row(case, threads), times[how]
    difference = abs(losses[how] - losses["plain"]) / abs(losses["plain"])
    return {
        **described(case, threads),
        "plain s": times["plain"],
        "fast s": times["fast"],
        "time ratio": times["plain"] / times["fast"],
        "linear": library,
        **({"of peak": work["GFLOP"] * 1e9 / times["fast"] / peak_flops(threads)} if on_cpu else {}),
        "plain MiB": peaks["plain"],
        "fast MiB": peaks["fast"],
        "memory ratio": peaks["plain"] / peaks["fast"],
        "GFLOP": work["GFLOP"],
        "of the floor": work["of the floor"],
        "loss difference": difference,
        "numbers": "equal" if difference <= tolerance(case) else "WRONG",
        **({"plain at": f"line through C = {' and '.join(map(str, plain_at))}"} if plain_at else {}),
    }


def line(xs: tuple[int, ...], ys: list[float], x: float) -> float:
    """The line through two points, at x."""
    return ys[0] + (ys[1] - ys[0]) * (x - xs[0]) / (xs[1] - xs[0])


@torch.no_grad()
def test_row(case: Case, count: int, plain_count: int, threads: int, fast_count: int | None = None) -> dict:
    """A test pass in batches of `TEST_BATCH` images.

    Args:
        plain_count, fast_count: on how many images a path runs (ours: all, if not told); its time is scaled to all, but
            for our class texts, which are encoded once a pass as the trainer does.
    """
    with autocast(case):
        return _test_row(case, count, plain_count, threads, fast_count or count)


def _test_row(case: Case, count: int, plain_count: int, threads: int, fast_count: int) -> dict:
    torch.set_num_threads(threads)
    paths = build(case)
    batch, texts = reference_images(min(TEST_BATCH, count)).to(case.device), []
    once = seconds(case.device, lambda: texts.append(paths.model.text_features()))
    (text,) = texts

    def all_images(forward: Callable[[torch.Tensor], object], timed: int) -> float:
        parts = [batch[: timed - first] for first in range(0, timed, len(batch))]
        return sum(seconds(case.device, partial(forward, part)) for part in parts) * count / timed

    plain = all_images(paths.plain, plain_count)
    fast = once + all_images(lambda part: paths.model(part, text), fast_count)
    few = batch[: min(4, len(batch))]
    difference = (paths.model(few, text).float() - paths.plain(few).float()).abs().max().item()
    scale = paths.model.clip.logit_scale.exp().item()  # logits are cosines times this
    return {
        **described(replace(case, batch=len(batch)), threads),
        "images": count,
        "images timed": f"{plain_count} and {fast_count}" if plain_count != fast_count else fast_count,
        "plain s": plain,
        "fast s": fast,
        "time ratio": plain / fast,
        "logit difference": difference / scale,
        "numbers": "equal" if difference / scale <= tolerance(case) else "WRONG",
    }


def memory_row(case: Case, steps: int, threads: int) -> dict:
    """Peak memory of some steps of our path alone, and the last one's time."""
    torch.set_num_threads(threads)
    peak, last = alone(case, case.how, threads, steps)
    return {**described(case, threads), "fast s": last, "fast MiB": peak}


def described(case: Case, threads: int) -> dict:
    """The case in a row's words."""
    row = {k: v for k, v in asdict(case).items() if k in ("method", "prompts", "classes", "batch", "prec")}
    if case.text_block:
        row["text block"] = case.text_block
    if case.how != "fast":
        row["ours"] = case.how
    return {**row, "device": torch.cuda.get_device_name() if case.device == "cuda" else f"CPU, {threads} threads"}
