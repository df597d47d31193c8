"""All tables of RESULTS.md, row by row: `python benchmarks/run.py --all`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate

from basics import write_atomic, write_json
from benchmarks.measure import described, line, memory, memory_row, test_row, training_row
from benchmarks.methods import PROMPTS, TESTED, Case

# Training steps: method, prompts, classes, batch; where the plain path runs if it does not fit there; the time ratio
# and the share of the floor that the project wants.
TRAINING = (
    ("RPO", 24, 50, 4, (), 3.3, 1.05),
    ("RPO", 4, 50, 4, (), 5, 1.05),
    ("RPO", 24, 500, 4, (50, 100), 3, 1.05),
    ("RPO", 4, 500, 4, (50, 100), 12, 1.05),
    ("CoCoOp", 4, 50, 1, (), 7, 1.1),
    ("CoCoOp", 4, 100, 1, (), 10, 1.1),
    ("CoOp", 16, 50, 32, (), 1.25, 1.1),
    ("CoOp", 16, 1000, 32, (50, 100), 5, 1.1),
    ("MaPLe", 2, 50, 4, (), 2.5, 1.1),
    ("SEP", 6, 50, 4, (), 2.5, 1.1),
    ("VPT", 8, 50, 4, (), 1.1, 1.05),
)
STEPS_CLASSES = 50  # of the rows that `--steps` measures
TEST = {"images": 500, "classes": 100}
TEST_TIMED = 100  # images that both paths really see: one batch
PLAIN_TEST_IMAGES = {"CoCoOp": 5}  # its plain path encodes all texts for each image: minutes for a few
# Peak memory: ours at these numbers of classes, whole and, at the last, in blocks; the plain path runs at `plain_at`,
# and the line through the two points tells the others.
MEMORY = {"classes": (50, 200, 1000), "batch": 4, "block": 100, "plain_at": (10, 50)}
FIXED_TEXT = ("VPT",)  # nothing of its text side runs in a step: there is nothing to do in blocks

NOTES = {
    "Training step": "Both paths take turns on the same images; the median of {rounds} rounds counts. Memory is the "
    "peak above the model, each path in a process of its own. GFLOP is the counted work of our step, without noise.",
    "Test pass": f"{TEST['images']} images in batches of 100; times of fewer are scaled to that, class texts counted "
    "once for ours.",
    "Memory of a training step": "The plain path's is the line through C = {low} and {high}; seconds are those of "
    "our second step, at C = {most} of our first.",
}


def questions(
    case: Case, rounds: int, threads: int, steps_only: bool
) -> Iterator[tuple[str, Case, Callable[[], dict]]]:
    """What is measured: table, case, and how.

    Args:
        steps_only: only the training steps with 50 classes.
    """
    for method, prompts, classes, batch, plain_at, ratio, work in TRAINING:
        if steps_only and classes != STEPS_CLASSES:
            continue
        one = replace(case, method=method, prompts=prompts, classes=classes, batch=batch)
        yield "Training step", one, partial(wanted_row, one, rounds, threads, plain_at, ratio, work)
    if steps_only:
        return
    for method, prompts in {**PROMPTS, **TESTED}.items():
        one = replace(case, method=method, prompts=prompts, classes=TEST["classes"])
        plain = PLAIN_TEST_IMAGES.get(method, TEST_TIMED)
        yield "Test pass", one, partial(test_row, one, TEST["images"], plain, threads, TEST_TIMED)
    for method, prompts in PROMPTS.items():
        one = replace(case, method=method, prompts=prompts, batch=MEMORY["batch"])
        plain: list[float] = []  # the plain path's two points, measured with the first row
        for classes in MEMORY["classes"]:
            at = replace(one, classes=classes)
            yield "Memory of a training step", at, partial(both_memories, at, plain, threads)
        if method not in FIXED_TEXT:
            blocks = replace(at, text_block=MEMORY["block"])
            yield "Memory of a training step", blocks, partial(both_memories, blocks, plain, threads)


def wanted_row(case: Case, rounds: int, threads: int, plain_at: tuple[int, ...], ratio: float, work: float) -> dict:
    """A training step, with the project's targets next to what was measured."""
    row = training_row(case, rounds, threads, plain_at)
    wanted = {"time ratio": {"wanted: at least": ratio}, "of the floor": {"wanted: at most": work}}
    return {k: v for key, value in row.items() for k, v in ({key: value} | wanted.get(key, {})).items()}


def both_memories(case: Case, plain: list[float], threads: int) -> dict:
    """Our peak beside the plain path's; its points are measured by the first call and kept in `plain`."""
    if not plain:
        plain += [memory(replace(case, classes=c, text_block=0), "plain", threads) for c in MEMORY["plain_at"]]
    steps = 1 if case.classes == max(MEMORY["classes"]) else 2  # the first also warms up, which counts in a short one
    row, peak = memory_row(case, steps, threads), line(MEMORY["plain_at"], plain, case.classes)
    return {**row, "plain MiB": peak, "memory ratio": peak / row["fast MiB"]}


def measure_all(case: Case, rounds: int, threads: int, folder: Path, steps_only: bool = False) -> list[dict]:
    """Measures everything; after each row FOLDER/results.md and results.json hold all so far.

    A row that cannot be measured (its process was killed, most likely for want of memory) says so; the others follow.
    """
    todo, rows, began = list(questions(case, rounds, threads, steps_only)), [], time.monotonic()
    for number, (table, one, measure) in enumerate(todo, 1):
        try:
            row = measure()
        except SystemExit as error:  # a child ended by a signal; the rows so far are worth keeping
            row = {**described(one, threads), "numbers": f"FAILED: {error}"}
        rows.append({"table": table, **row})
        write_json(rows, folder / "results.json")
        write_atomic(folder / "results.md", markdown(rows, case, rounds, threads).encode())
        gain = row.get("time ratio", row.get("memory ratio", float("nan")))
        minutes = (time.monotonic() - began) / 60
        print(
            f"[{number}/{len(todo)}] {minutes:.1f} min: {table.lower()}, {one.method}, K = {one.prompts}, "
            f"C = {one.classes}: ratio {gain:.3g} {row.get('numbers', '')}",
            file=sys.stderr,
            flush=True,
        )
    return rows


def markdown(rows: list[dict], case: Case, rounds: int, threads: int) -> str:
    """RESULTS.md's tables; what is the same in all rows stands above them."""
    (low, high), most = MEMORY["plain_at"], max(MEMORY["classes"])
    what = "--all" if len({row["table"] for row in rows}) > 1 else "--steps"
    parts = [
        f"ViT-B/16 sizes{'' if case.layers == 12 else f' but {case.layers} layers'}, random weights, {case.prec}, "
        f"{rows[0]['device']}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}. Ratios are what to quote.\n\n"
        f"Command: `python benchmarks/run.py {what} --rounds {rounds} --threads {threads}`.\n"
    ]
    for table in dict.fromkeys(row["table"] for row in rows):
        parts.append(f"## {table}\n\n{NOTES[table].format(rounds=rounds, low=low, high=high, most=most)}\n")
        hidden = ("table", "prec", "device")
        parts.append(as_table([{k: v for k, v in r.items() if k not in hidden} for r in rows if r["table"] == table]))
    return "\n".join(parts)


def as_table(rows: list[dict]) -> str:
    """Rows as a Markdown table."""
    written = [{key: digits(value) for key, value in row.items()} for row in rows]
    return tabulate(written, headers="keys", tablefmt="github", disable_numparse=True) + "\n"


def digits(value: object) -> object:
    """A measured number with three digits, or whole if it has more; anything else unchanged."""
    if not isinstance(value, float):
        return value
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
