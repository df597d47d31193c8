"""Time, peak memory, and counted work of a training step, and time of a test pass, on both paths in one run."""

from __future__ import annotations

import gc
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.methods import Case, Paths, build, frozen_clip, reference_images
from clip import linear
from clip.counting import counted
from dassl.utils import keep_freed_memory, return_freed_memory
from trainers.base import TOWER_DTYPES

# The largest relative difference of the paths' losses: in float32 a fixed one; in half precision a few roundings,
# because the paths round in different places.
TOLERANCE, ROUNDINGS = 1e-4, 8
TEST_BATCH = 100
PEAK_BATCHES, PEAK_ROUNDS = (4, 32), 3  # images or texts, and repetitions, of the fastest linear map


def tolerance(case: Case) -> float:
    dtype = torch.get_autocast_dtype(case.device) if case.prec == "amp" else TOWER_DTYPES[case.prec]
    return TOLERANCE if dtype == torch.float32 else ROUNDINGS * torch.finfo(dtype).eps


def autocast(case: Case) -> torch.autocast:
    return torch.autocast(case.device, enabled=case.prec == "amp")


def data(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(case.batch, device=case.device) % case.classes
    return reference_images(case.batch).to(case.device), labels


def loss_of(case: Case, paths: Paths, path: str) -> Callable[[], torch.Tensor]:
    """Return a function without arguments that computes a path's training loss."""
    images, labels = data(case)

    def loss() -> torch.Tensor:
        with autocast(case):
            return paths.losses[path](images, labels)

    return loss


def step(loss: Callable[[], torch.Tensor], learner: torch.nn.Module) -> torch.Tensor:
    """Take one training step. Returns the loss."""
    learner.zero_grad()
    value = loss()
    value.backward()
    with torch.no_grad():
        for p in learner.parameters():
            if p.grad is not None:
                p -= 0.01 * p.grad
    return value.detach()


def seconds(device: str, call: Callable[[], object]) -> float:
    """Return the seconds that a call takes, on a GPU by the device's events."""
    if device != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def median_seconds(device: str, calls: dict[Hashable, Callable[[], object]], rounds: int) -> dict[Hashable, float]:
    """Return the median seconds of calls that take turns. The first round warms up and does not count."""
    times = {key: [] for key in calls}
    for _ in range(rounds + 1):
        for key, call in calls.items():
            times[key].append(seconds(device, call))
    return {key: statistics.median(each[1:]) for key, each in times.items()}


def memory_mib(device: str, peak: bool) -> float:
    """Return the memory in use, or its peak since `reset_peak`, in MiB: torch's on a GPU, else the process's."""
    if device == "cuda":
        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 2**20
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) / 1024  # from KiB


def reset_peak(device: str) -> None:
    """Restart the peak at the memory in use now, without what only building the model needed."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        return_freed_memory(torch.device(device))
        Path("/proc/self/clear_refs").write_text("5")  # Linux only


def use_run_settings(case: Case, threads: int) -> str:
    """Set up this process as a training run does. Returns the library for frozen linear maps (MODEL.LINEAR auto)."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    if not float32_on_cpu(case):
        return linear.use("torch")
    return linear.use(linear.faster(frozen_clip(1, "cpu", torch.float32).tower_shapes()))


def float32_on_cpu(case: Case) -> bool:
    return case.device == "cpu" and case.prec == "fp32"


def _alone(case: Case, path: str, threads: int, steps: int, answer) -> None:
    torch.set_num_threads(threads)
    if path != "plain":  # the released code changes no setting of the process
        use_run_settings(case, threads)
    paths = build(case)
    loss, learner = loss_of(case, paths, path), paths.model.prompt_learner
    reset_peak(case.device)
    before = memory_mib(case.device, peak=False)
    times = [seconds(case.device, partial(step, loss, learner)) for _ in range(steps)]
    answer.put((memory_mib(case.device, peak=True) - before, times[-1]))


def memory(case: Case, path: str, threads: int) -> float:
    """Measure the peak memory of a step above the model, in MiB, in a separate process."""
    return alone(case, path, threads, 1)[0]


def alone(case: Case, path: str, threads: int, steps: int) -> tuple[float, float]:
    """Measure some steps in a separate process: peak memory above the model, in MiB, and seconds of the last."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    child = context.Process(target=_alone, args=(case, path, threads, steps, answer))
    child.start()
    while answer.empty() and child.is_alive():
        child.join(timeout=0.1)
    child.join()
    if child.exitcode:
        why = "was killed, probably for lack of memory" if child.exitcode == -9 else f"exited with {child.exitcode}"
        raise SystemExit(f"the {path} path at C = {case.classes} {why}")
    return answer.get()


def profile(case: Case, steps: int, threads: int) -> str:
    """Return the profile of our step by torch's profiler, as a table."""
    use_run_settings(case, threads)
    paths = build(case)
    loss, learner = loss_of(case, paths, case.how), paths.model.prompt_learner
    step(loss, learner)  # warm-up
    with torch.profiler.profile() as profiler:
        for _ in range(steps):
            step(loss, learner)
    return profiler.key_averages().table(sort_by=f"self_{case.device}_time_total", row_limit=25)


@dataclass
class StepTimes:
    """Measurements of steps that take turns, by name.

    Attributes:
        seconds: medians.
        losses: of the last step.
        faults: page faults of the last step.
    """

    seconds: dict[str, float]
    losses: dict[str, float]
    faults: dict[str, int]


def training_times(case: Case, names: tuple[str, ...], rounds: int) -> StepTimes:
    """Time steps that take turns on the same images, from the same prompts.

    Args:
        names: keys of `Paths.losses`; "torch" is our step (`case.how`) with MODEL.LINEAR torch.
    """
    paths, library = build(case), linear.in_use()
    learner = paths.model.prompt_learner
    start = {k: v.clone() for k, v in learner.state_dict().items()}
    losses, faults = {}, {}

    def one_step(name: str) -> None:
        linear.use("torch" if name == "torch" else library)
        learner.load_state_dict(start)
        before = page_faults()
        losses[name] = step(loss_of(case, paths, case.how if name == "torch" else name), learner)
        faults[name] = page_faults() - before

    try:
        times = median_seconds(case.device, {name: partial(one_step, name) for name in names}, rounds)
    finally:
        linear.use(library)
    return StepTimes(times, {name: value.item() for name, value in losses.items()}, faults)


def page_faults() -> int:
    """Return the number of page faults of this process so far that needed no disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def work_row(case: Case, threads: int) -> dict:
    """Count the work of our training step, and its floor."""
    torch.set_num_threads(threads)
    paths = build(case)
    work = counted(loss_of(case, paths, "fast"))
    return {
        **described(case, threads),
        "GFLOP": work / 1e9,
        "floor GFLOP": paths.floor / 1e9,
        "of the floor": work / paths.floor,
    }


def peak_flops() -> float:
    """Measure the most float32 operations per second in any linear map of ViT-B/16's towers, now."""
    libraries = linear.LIBRARIES if linear.available() else ("torch",)
    before, best = linear.in_use(), 0.0
    for tokens, width in frozen_clip(1, "cpu", torch.float32).tower_shapes():
        for out, into in ((3 * width, width), (width, width), (4 * width, width), (width, 4 * width)):
            for batch in PEAK_BATCHES:
                x, weight = torch.ones(batch * tokens, into), torch.ones(out, into)
                for library in libraries * PEAK_ROUNDS:
                    linear.use(library)
                    elapsed = seconds("cpu", partial(linear.linear, x, weight))
                    best = max(best, 2 * len(x) * weight.numel() / elapsed)
    linear.use(before)
    return best


def short_training_row(case: Case, rounds: int, threads: int) -> dict:
    """Measure one training step on both paths, and count ours; the other library and the peak are left out."""
    library = use_run_settings(case, threads)
    peaks = {path: memory(case, path, threads) for path in ("plain", "fast")}
    times = training_times(case, ("plain", "fast"), rounds)
    plain, fast = times.seconds["plain"], times.seconds["fast"]
    work, expected = work_row(case, threads), times.losses["plain"]
    difference = abs(times.losses["fast"] - expected) / abs(expected)
    return {
        **described(case, threads),
        **{"plain s": plain, "fast s": fast, "time ratio": plain / fast, "linear": library},
        **{"plain MiB": peaks["plain"], "fast MiB": peaks["fast"], "memory ratio": peaks["plain"] / peaks["fast"]},
        **{"GFLOP": work["GFLOP"], "of the floor": work["of the floor"], "loss difference": difference},
        "numbers": "equal" if difference <= tolerance(case) else "WRONG",
    }


def training_row(case: Case, rounds: int, threads: int, plain_at: tuple[int, ...] = ()) -> dict:
    """Measure one training step on both paths.

    Args:
        plain_at: two smaller numbers of classes at which the plain path runs if it does not fit at `case.classes`. Its
            time and memory are extrapolated linearly, and losses are compared at the larger number.
    """
    library = use_run_settings(case, threads)
    how, names = case.how, (case.how, "torch") if library != "torch" else (case.how,)
    peaks = {"fast": memory(case, how, threads)}
    if not plain_at:
        peaks["plain"] = memory(case, "plain", threads)
        measured = compared = training_times(case, ("plain", *names), rounds)
        plain = measured.seconds["plain"]
    else:
        measured = training_times(case, names, rounds)
        low, high = (replace(case, classes=c) for c in plain_at)
        first, compared = training_times(low, ("plain",), rounds), training_times(high, ("plain", *names), rounds)
        plain = line(plain_at, [times.seconds["plain"] for times in (first, compared)], case.classes)
        peaks["plain"] = line(plain_at, [memory(point, "plain", threads) for point in (low, high)], case.classes)
    work, fast, expected = work_row(case, threads), measured.seconds[how], compared.losses["plain"]
    difference = max(abs(compared.losses[name] - expected) / abs(expected) for name in names)
    settings = {}
    if float32_on_cpu(case):
        share = work["GFLOP"] * 1e9 / fast / peak_flops()
        settings = {"linear": library, "linear torch s": measured.seconds[names[-1]], "of peak": share}
    return {
        **described(case, threads),
        "plain s": plain,
        "fast s": fast,
        "time ratio": plain / fast,
        **settings,
        "page faults": measured.faults[how],
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
    """Return the value at x of the line through two points."""
    return ys[0] + (ys[1] - ys[0]) * (x - xs[0]) / (xs[1] - xs[0])


@torch.no_grad()
def test_row(case: Case, count: int, plain_count: int, threads: int, fast_count: int | None = None) -> dict:
    """Measure a test pass in batches of `TEST_BATCH` images.

    Args:
        plain_count, fast_count: images that each path runs on (ours by default on all). Times are scaled to `count`,
            except for our class texts, which are encoded once per pass, as in the trainer.
    """
    with autocast(case):
        return _test_row(case, count, plain_count, threads, fast_count or count)


def _test_row(case: Case, count: int, plain_count: int, threads: int, fast_count: int) -> dict:
    library = use_run_settings(case, threads)
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
        "linear": library,
        "logit difference": difference / scale,
        "numbers": "equal" if difference / scale <= tolerance(case) else "WRONG",
    }


def memory_row(case: Case, steps: int, threads: int) -> dict:
    """Measure the peak memory of some steps of our path, and the seconds of the last, in a separate process."""
    peak, last = alone(case, case.how, threads, steps)
    return {**described(case, threads), "fast s": last, "fast MiB": peak}


def processor() -> str:
    """Return the name of this machine's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def described(case: Case, threads: int) -> dict:
    """Return the columns of a row that describe the case."""
    row = {k: v for k, v in asdict(case).items() if k in ("method", "prompts", "classes", "batch", "prec")}
    if case.text_block:
        row["text block"] = case.text_block
    if case.how != "fast":
        row["ours"] = case.how
    return {**row, "device": torch.cuda.get_device_name() if case.device == "cuda" else f"CPU, {threads} threads"}
