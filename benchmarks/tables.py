"""The generated sections of RESULTS.md, row by row: `python benchmarks/run.py --steps` and `--all`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import fill

import torch
from tabulate import tabulate

from basics import write_atomic, write_json
from benchmarks.measure import (
    described,
    line,
    memory,
    memory_row,
    processor,
    short_training_row,
    test_row,
    training_row,
)
from benchmarks.methods import FURTHER, PROMPTS, TESTED, Case

STEPS, MORE_STEPS = "Training step", "Training step with more classes"
FURTHER_STEPS = "Training step of further methods"
TEST_PASS, MEMORY_OF_STEP = "Test pass", "Memory of a training step"
# Training steps: method, prompts, classes, batch, and two numbers of classes for a plain path that does not fit.
TRAINING = (
    ("RPO", 24, 50, 4, ()),
    ("RPO", 4, 50, 4, ()),
    ("CoCoOp", 4, 50, 1, ()),
    ("CoOp", 16, 50, 32, ()),
    ("MaPLe", 2, 50, 4, ()),
    ("SEP", 6, 50, 4, ()),
    ("VPT", 8, 50, 4, ()),
)
MORE_CLASSES = (
    ("RPO", 24, 500, 4, (50, 100)),
    ("RPO", 4, 500, 4, (50, 100)),
    ("CoCoOp", 4, 100, 1, ()),
    ("CoOp", 16, 1000, 32, (50, 100)),
)
FURTHER_STEP = {"classes": 50, "batch": 4}
FEWER_CLASSES = {"PLOTPP": 20}  # whose plain path encodes four texts of each class and needs too much memory with 50
TEST = {"images": 500, "classes": 100}
TEST_TIMED = 100  # images that both paths run on: one batch
PLAIN_TEST_IMAGES = {"CoCoOp": 5}  # its plain path encodes all texts for each image, which takes minutes for a few
# Peak memory: ours at these numbers of classes, in blocks too at the largest; the plain path runs at `plain_at`, and is
# extrapolated linearly.
MEMORY = {"classes": (50, 200, 1000), "batch": 4, "block": 100, "plain_at": (10, 50)}
LINE = 118  # characters of a line of text in RESULTS.md
FIXED_TEXT = ("VPT",)  # no text runs in a step, so there is nothing to do in blocks

STEP_NOTE = (
    'Medians of {rounds} rounds in which the paths take turns. "fast" is ours with MODEL.LINEAR auto, which chose the '
    'library in column "linear"; "linear torch s" is ours with MODEL.LINEAR torch. "of peak" is the counted work per '
    "second over this machine's measured float32 peak. Page faults are those of our step. Memory is the peak above the "
    "model in a separate process for each path. GFLOP is the counted work of our step."
)
NOTES = {
    STEPS: STEP_NOTE,
    FURTHER_STEPS: "Medians of {rounds} rounds in which the paths take turns. Prompts are the adapters' width for MMA, "
    "and the rank for CLIPLoRA. DePT, PromptSRC, and MMRL train on four images as released; the others on 16 to 128, "
    "where the images weigh more. KgCoOp, ProGrad, DePT, and TCP train on cached image features (below); neither path "
    "of this table does. Memory is the peak above the model in a separate process for each path.",
    MORE_STEPS: STEP_NOTE,
    TEST_PASS: f"{TEST['images']} images in batches of 100. Times of fewer images are scaled to that number; our class "
    "texts, encoded once, are not scaled.",
    MEMORY_OF_STEP: "The plain path's memory is extrapolated linearly from C = {low} and {high}. Seconds are those of "
    "our second step, at C = {most} of the first.",
}


def measurements(
    case: Case, rounds: int, threads: int, only: str = ""
) -> Iterator[tuple[str, Case, Callable[[], dict]]]:
    """List all rows to measure: section, case, and the function that measures it.

    Args:
        only: the section STEPS or FURTHER_STEPS; empty: all sections.
    """
    for section, rows in ((STEPS, TRAINING), (MORE_STEPS, MORE_CLASSES)):
        if only in ("", section):
            for method, prompts, classes, batch, plain_at in rows:
                one = replace(case, method=method, prompts=prompts, classes=classes, batch=batch)
                yield section, one, partial(training_row, one, rounds, threads, plain_at)
    if only in ("", FURTHER_STEPS):
        for method, prompts in FURTHER.items():
            one = replace(case, method=method, prompts=prompts, **FURTHER_STEP)
            one = replace(one, classes=FEWER_CLASSES.get(method, one.classes))
            yield FURTHER_STEPS, one, partial(short_training_row, one, rounds, threads)
    if only:
        return
    for method, prompts in {**PROMPTS, **TESTED}.items():
        one = replace(case, method=method, prompts=prompts, classes=TEST["classes"])
        plain = PLAIN_TEST_IMAGES.get(method, TEST_TIMED)
        yield TEST_PASS, one, partial(test_row, one, TEST["images"], plain, threads, TEST_TIMED)
    for method, prompts in PROMPTS.items():
        one = replace(case, method=method, prompts=prompts, batch=MEMORY["batch"])
        plain: list[float] = []  # the plain path's two points, measured with the first row
        for classes in MEMORY["classes"]:
            at = replace(one, classes=classes)
            yield MEMORY_OF_STEP, at, partial(both_memories, at, plain, threads)
        if method not in FIXED_TEXT:
            blocks = replace(at, text_block=MEMORY["block"])
            yield MEMORY_OF_STEP, blocks, partial(both_memories, blocks, plain, threads)


def both_memories(case: Case, plain: list[float], threads: int) -> dict:
    """Return our peak memory and the plain path's, whose two points the first call measures and keeps in `plain`."""
    if not plain:
        plain += [memory(replace(case, classes=c, text_block=0), "plain", threads) for c in MEMORY["plain_at"]]
    steps = 1 if case.classes == max(MEMORY["classes"]) else 2  # warming up matters in a short step only
    row, peak = memory_row(case, steps, threads), line(MEMORY["plain_at"], plain, case.classes)
    return {**row, "plain MiB": peak, "memory ratio": peak / row["fast MiB"]}


def measure_all(case: Case, rounds: int, threads: int, folder: Path, only: str = "") -> list[dict]:
    """Measure all rows. After each, FOLDER/results.md and results.json hold the rows so far.

    A row that cannot be measured (its process was killed, probably for lack of memory) is marked FAILED.
    """
    todo, rows, start = list(measurements(case, rounds, threads, only)), [], time.monotonic()
    for number, (section, one, measure) in enumerate(todo, 1):
        try:
            row = measure()
        except SystemExit as error:  # of the row's process; the other rows are still useful
            row = {**described(one, threads), "numbers": f"FAILED: {error}"}
        rows.append({"table": section, **row})
        write_json(rows, folder / "results.json")
        write_atomic(folder / "results.md", markdown(rows, case, rounds, threads).encode())
        gain = row.get("time ratio", row.get("memory ratio", float("nan")))
        minutes = (time.monotonic() - start) / 60
        print(
            f"[{number}/{len(todo)}] {minutes:.1f} min: {section.lower()}, {one.method}, K = {one.prompts}, "
            f"C = {one.classes}: ratio {gain:.3g} {row.get('numbers', '')}",
            file=sys.stderr,
            flush=True,
        )
    return rows


def sections(rows: list[dict], case: Case, rounds: int, threads: int) -> dict[str, str]:
    """Return title -> text of the generated sections; each states how it was measured."""
    (low, high), most = MEMORY["plain_at"], max(MEMORY["classes"])
    texts, hidden = {}, ("table", "prec", "device")
    layers = "" if case.layers == 12 else f" but {case.layers} layers"
    for title in dict.fromkeys(row["table"] for row in rows):
        these = [row for row in rows if row["table"] == title]
        option = {STEPS: "--steps", FURTHER_STEPS: "--further"}.get(title, "--all")
        command = f"{option} --rounds {rounds} --threads {threads}"
        conditions = (
            f"`python benchmarks/run.py {command}`, {time.strftime('%Y-%m-%d')}: ViT-B/16 sizes{layers}, random "
            f"weights, {case.prec}, {these[0]['device']} ({processor()}), torch {torch.__version__}."
        )
        note = NOTES[title].format(rounds=rounds, low=low, high=high, most=most)
        table = as_table([{k: v for k, v in row.items() if k not in hidden} for row in these])
        texts[title] = f"{fill(conditions, LINE)}\n\n{fill(note, LINE)}\n\n{table}"
    return texts


def markdown(rows: list[dict], case: Case, rounds: int, threads: int) -> str:
    """Return the generated sections as one Markdown text."""
    return "\n".join(f"## {title}\n\n{text}" for title, text in sections(rows, case, rounds, threads).items())


def replace_sections(document: str, texts: dict[str, str]) -> str:
    """Replace the sections with these titles in a Markdown document; the others stay. New ones go to the end."""
    head, *parts = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    all_sections = {part.splitlines()[0]: part.rstrip() for part in parts}
    all_sections |= {f"## {title}": f"## {title}\n\n{text.rstrip()}" for title, text in texts.items()}
    return "\n\n".join([head.rstrip(), *all_sections.values()]) + "\n"


def as_table(rows: list[dict]) -> str:
    """Format rows as a Markdown table."""
    written = [{key: digits(value) for key, value in row.items()} for row in rows]
    return tabulate(written, headers="keys", tablefmt="github", disable_numparse=True) + "\n"


def digits(value: object) -> object:
    """Format a measured number with three digits, or whole if it has more; anything else is unchanged."""
    if not isinstance(value, int | float):
        return value
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
