"""Reads results.json files: which runs a folder holds, which are done, and whether they used the current settings."""

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from basics import UserError
from dassl.config import decode, flatten
from promptlearn.experiments.checkout import Checkout, plain
from promptlearn.experiments.protocols import Job, Protocol, Row, Stage, jobs_of
from promptlearn.experiments.run_files import read_result_file
from promptlearn.experiments.shots import parse_shots

RESULTS = "results.json"
NOT_APPLICABLE = "n/a"  # the status of such a run, and its entry in tables
RUN_FOLDER = re.compile(
    r"(?P<dataset>[^/]+)/shots_(?P<shots>[^/]+)/(?P<trainer>[^/]+)/(?P<config>[^/,]+)(,(?P<variant>[^/]+))?/"
    r"seed(?P<seed>\d+)"
)


def read_result(folder: Path, request: dict) -> dict | None:
    """Read the results.json of a run that is done and matches the request, or None; report a damaged one.

    A run whose method has no answer for these classes is done: its status is "n/a", and it has no metrics.
    """
    result = read_result_file(folder / RESULTS)
    if result is None or result["status"] not in ("done", NOT_APPLICABLE):
        return None
    if result["status"] == "done" and result["metrics"] is None:  # TEST.NO_TEST
        return None
    result = {"train_fraction": 1.0} | result  # earlier versions did not record it
    return result if all(result[key] == value for key, value in request.items()) else None


def refuse_other_settings(jobs: list[Job], checkout: Checkout, data: Path | None = None) -> None:
    """Raise UserError if a finished run was made with other settings than the config files have now.

    The DATA folder may have moved since, unless it is the dataset itself: the user's own pictures.
    """
    for job in jobs:
        assert job.data is not None  # the jobs are planned
        result = read_result(job.folder, job.request)
        there = flatten(result.get("config", {})) if result else {}
        now = checkout.values(job.data.config, job.row.trainer, job.row.config)
        now |= {key: plain(decode(value)) for key, value in job.overrides}
        root = there.get("DATASET.ROOT")
        now_root = job.data.root or (data if job.data.is_own else None)
        if root and now_root:
            there["DATASET.ROOT"], now["DATASET.ROOT"] = str(checkout.folder.joinpath(root)), str(now_root)
        differing = [
            f"{key}: expected {now[key]!r}, got {there[key]!r}" for key in now if there.get(key, now[key]) != now[key]
        ]
        if differing:
            raise UserError(
                f"{job.folder}: expected a run with the current settings, got one with others:\n"
                + "\n".join(differing)
                + "\nChoose another --output (OUTPUT=FOLDER before a script), or delete that folder."
                + " Or give the dataset another name: NAME=PATH." * ("DATASET.ROOT" in now)
            )


def result_of(job: Job) -> dict | None:
    """Return a job's result, or None if it is not done.

    A test counts only if it tested the prompts that its training ended with: a new training voids an old test.
    """
    result = read_result(job.folder, job.request)
    if result and job.source and result["status"] != NOT_APPLICABLE:
        trained = result_of(job.source)
        if trained is None or trained.get("prompts_sha256") != result.get("prompts_sha256"):
            return None
    return result


def discover(protocol: Protocol, *outputs: Path) -> list[Job]:
    """List the protocol's jobs that have a folder in `outputs`, finished or not, with all their stages.

    `dassl <protocol>` creates the folders of all its jobs before it runs the first, so missing runs are found, too. A
    run that is in several of the folders counts once: the first finished one.
    """
    stages = protocol.stages
    if protocol.transfer:
        stages = protocol.on(sorted({target for output in outputs for target in targets_in(protocol, output)}))
    found: dict[tuple[Row, int], list[Path]] = {}  # where each row and seed has a folder
    for output in outputs:
        for row, seed in _rows_in(protocol, stages, output):
            found.setdefault((row, seed), []).append(output)
    jobs = []
    for row, seed in sorted(found, key=str):
        copies = [jobs_of(stages, row, seed, output) for output in found[row, seed]]
        jobs += copies[0] if len(copies) == 1 else _join(copies)
    return jobs


def _rows_in(protocol: Protocol, stages: tuple[Stage, ...], output: Path) -> set[tuple[Row, int]]:
    found = set()
    for stage in stages:
        if protocol.transfer and not stage.dataset:
            continue  # a training on the source may belong to another protocol
        for path in (output / stage.folder).glob("*/*/*/*/*"):
            match = RUN_FOLDER.fullmatch(path.relative_to(output / stage.folder).as_posix())
            if match:
                with suppress(UserError):  # not a folder of ours
                    shots, variant = parse_shots(match["shots"]), match["variant"] or ""
                    row = Row(match["dataset"], match["trainer"], match["config"], shots, variant)
                    found.add((row, int(match["seed"])))
    return found


def _join(copies: list[list[Job]]) -> list[Job]:
    """Return the jobs of one row and seed that is in several folders, each with its source from whichever has it."""
    joined: dict[Stage, Job] = {}
    for alike in zip(*copies, strict=True):
        source = joined[alike[0].source.stage] if alike[0].source else None
        alike = [replace(job, source=source) for job in alike]
        joined[alike[0].stage] = next((job for job in alike if result_of(job)), alike[0])
    return list(joined.values())


def targets_in(protocol: Protocol, output: Path) -> list[str]:
    """List the datasets that a transfer is tested on, found by its folders."""
    prefix = "test_"
    return sorted(path.name.removeprefix(prefix) for path in (output / protocol.name).glob(f"{prefix}*"))
