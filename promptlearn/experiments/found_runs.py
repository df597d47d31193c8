"""Finds runs in any folders: those of protocols, and single runs of train.py.

A single run is placed in a table by its results.json: dataset, method, shots, seed, and classes. Settings that differ
between runs of one method are part of its name there. The test of a model belongs to the row of its training, which has
the same prompts.
"""

import os
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from basics import UserError, notify
from dassl.config import FREE_TO_CHANGE, flatten
from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.discovery import RESULTS, discover
from promptlearn.experiments.planning import label_of
from promptlearn.experiments.protocols import PROTOCOLS, UNTRAINED, Job, Protocol, Row, Stage
from promptlearn.experiments.requested_datasets import OWN_REGISTERED, TABLES
from promptlearn.experiments.run_files import read_result_file
from promptlearn.experiments.shots import from_results, shots_order

SINGLE = Protocol("single_runs", "single runs on all classes", (Stage("", "all"),), single=True)
SINGLE_HALVES = Protocol(
    "single_base2new",
    "single runs on base and new classes",
    (Stage("", "base", subsample="base"), Stage("", "new", subsample="new")),
    single=True,
)
SUBSAMPLES = ("all", "base", "new")
PAGES = "report"  # folder for the pages about several folders
MISSING = "no folder"
NOT_SETTINGS = ("DATASET.", "TEST.", "SEED")  # starts of keys that do not make another method
OF_UNTRAINED = ("INPUT.", "MODEL.")  # starts of the keys that matter to methods that train nothing
BACKBONE = "MODEL.BACKBONE.NAME"
INPUT_OF_BACKBONE = ("INPUT.SIZE", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD")  # follow it, unless they are set


@dataclass(frozen=True)
class FoundRuns:
    """The runs of one protocol.

    Attributes:
        folder: where its report belongs.
    """

    protocol: Protocol
    jobs: list[Job]
    folder: Path


def find_runs(folders: list[Path]) -> list[FoundRuns]:
    """Find all runs in these folders, protocol by protocol, then single runs.

    Raises:
        UserError: a folder has none.
    """
    outputs: dict[Protocol, dict[Path, list[Job]]] = {}  # protocol -> --output folder -> its runs there
    results: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: expected a folder with runs, got no folder. Check the path.")
        of_protocols, of_runs = _look_through(folder.resolve())
        for (protocol, output), jobs in of_protocols.items():
            outputs.setdefault(protocol, {})[output] = jobs
        results |= dict.fromkeys(of_runs)
        if not of_protocols and not of_runs:
            raise UserError(
                f"{folder}: expected a folder with runs, got one without {RESULTS} in it or below. Name the folder of "
                "a run or of a protocol, or one that holds some."
            )
    default = folders[0].resolve() if len(folders) == 1 else Path(PAGES).resolve()
    found, in_protocols = [], set()
    for protocol, of_it in sorted(outputs.items(), key=lambda item: [*PROTOCOLS].index(item[0].name)):
        if len(of_it) == 1:
            [(output, jobs)] = of_it.items()
            found.append(FoundRuns(protocol, jobs, output))
        else:
            found.append(FoundRuns(protocol, discover(protocol, *of_it), default))
        in_protocols |= {job.folder for jobs in of_it.values() for job in jobs}
    single = _single_jobs([folder for folder in results if folder not in in_protocols])
    found += [FoundRuns(protocol, jobs, default) for protocol, jobs in single.items() if jobs]
    if not found:
        raise UserError(
            f"{', '.join(map(str, folders))}: expected runs with test results, got {len(results)} without. There is "
            "nothing to print yet."
        )
    return found


def _look_through(folder: Path) -> tuple[dict[tuple[Protocol, Path], list[Job]], list[Path]]:
    """Return {(protocol, output folder): its jobs} of what is in or below a folder, and the folders of all runs."""
    protocols: dict[tuple[Protocol, Path], list[Job]] = {}
    runs = []
    for place, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if RESULTS in files:
            runs.append(Path(place))
        name = Path(place).name
        for protocol in PROTOCOLS.values():
            if protocol.name == name and (jobs := discover(protocol, Path(place).parent)):
                protocols[protocol, Path(place).parent] = jobs
    return protocols, runs


def _single_jobs(folders: list[Path]) -> dict[Protocol, list[Job]]:
    """Return jobs for the runs in these folders, with a missing one where only base or only new classes were tested."""
    results = {folder: result for folder in folders if (result := _read_tested(folder))}
    trained = {
        result["prompts_sha256"]: folder
        for folder, result in results.items()
        if result.get("task") != "eval" and result.get("prompts_sha256")
    }
    models = {  # folder of a run -> that of the training of the model that it tested, or its own
        folder: trained.get(result.get("prompts_sha256"), folder) if result["trainer"] not in UNTRAINED else folder
        for folder, result in results.items()
    }
    variants = _variants({folder: result for folder, result in results.items() if models[folder] == folder})
    names = _dataset_names(results)
    most = max((from_results(result) for result in results.values()), key=shots_order, default=1)
    jobs: dict[tuple[Row, int, str], Job] = {}
    repeated = []
    for folder, result in sorted(results.items(), key=lambda item: item[1].get("task") == "eval"):
        trainer, dataset, model = result["trainer"], names[folder], models[folder]
        origin = _origin(results[model], result, names[model], dataset)
        shots = most if trainer in UNTRAINED else from_results(results[model])
        row = Row(dataset, trainer, "", shots, ",".join(filter(None, (variants[model], origin))))
        seed, subsample = results[model]["seed"], result["subsample"]
        origin = _origin(results[model], results[model], names[model], names[model])
        trained_row = replace(row, dataset=names[model], variant=",".join(filter(None, (variants[model], origin))))
        source = jobs.get((trained_row, seed, results[model]["subsample"])) if model != folder else None
        stage = next(each for each in (*SINGLE.stages, *SINGLE_HALVES.stages) if each.subsample == subsample)
        job = Job(row, seed, stage, folder, source=source, is_single=True)
        first = jobs.setdefault((row, seed, subsample), job)
        if first is not job and results[first.folder]["metrics"]["accuracy"] != result["metrics"]["accuracy"]:
            repeated.append(folder)
    if repeated:
        notify(
            f"{len(repeated)} runs have the method, dataset, shots, seed, and settings of another one, but other "
            f"results; the first ones count, and not {', '.join(map(str, repeated[:3]))}"
        )
    halves = [job for job in jobs.values() if job.stage in SINGLE_HALVES.stages]
    for row, seed in dict.fromkeys((job.row, job.seed) for job in halves):
        for stage in SINGLE_HALVES.stages:
            if (row, seed, stage.subsample) not in jobs:
                halves.append(Job(row, seed, stage, Path(MISSING), is_single=True))
    halves.sort(key=lambda job: (str(job.row), job.seed, SINGLE_HALVES.stages.index(job.stage)))
    return {SINGLE: [job for job in jobs.values() if job.stage in SINGLE.stages], SINGLE_HALVES: halves}


def _origin(trained: dict, tested: dict, source: str, dataset: str) -> str:
    """Return what a model was trained on, if its column does not say so: the same dataset, and base or all classes.

    So models that were trained on base and on new classes are two lines, without an H.
    """
    classes = "all" if tested["subsample"] == "all" else "base"
    is_expected = trained.get("task") == "eval" or trained["trainer"] in UNTRAINED or trained["subsample"] == classes
    what = [] if is_expected else [f"{trained['subsample']} classes"]
    what += [source] if source != dataset else []
    return f"trained on {' of '.join(what)}" if what else ""


def _read_tested(folder: Path) -> dict | None:
    """Read the results of a run; None if it has no accuracy on test images."""
    result = read_result_file(folder / RESULTS)
    if result is None or result["status"] != "done" or not result["metrics"] or result["subsample"] not in SUBSAMPLES:
        return None
    return None if flatten(result.get("config", {})).get("TEST.SPLIT") == "val" else {"train_fraction": 1.0} | result


def _variants(results: dict[Path, dict]) -> dict[Path, str]:
    """Describe, for each run, the settings that differ between the runs of its method."""
    by_trainer: dict[str, dict[Path, dict]] = defaultdict(dict)
    for folder, result in results.items():
        settings = flatten(result.get("config", {}))
        own = {key: value for key, value in settings.items() if key not in FREE_TO_CHANGE | {"RESUME"}}
        own = {key: value for key, value in own.items() if not key.startswith(NOT_SETTINGS)}
        if result["trainer"] in UNTRAINED:
            own = {key: value for key, value in own.items() if key.startswith(OF_UNTRAINED)}
        by_trainer[result["trainer"]][folder] = own | {BACKBONE: result.get("backbone", "")}
    found = {}
    for of_it in by_trainer.values():
        common = set.intersection(*map(set, of_it.values()))  # another version, or another checkout, has other keys
        differing = sorted(key for key in common if len({str(each[key]) for each in of_it.values()}) > 1)
        if BACKBONE in differing:
            differing = [key for key in differing if key not in INPUT_OF_BACKBONE]
        for folder, settings in of_it.items():
            values = [(key, str(settings[key])) for key in differing]
            found[folder] = label_of([("backbone" if key == BACKBONE else key, value) for key, value in values])
    return found


def _dataset_names(results: dict[Path, dict]) -> dict[Path, str]:
    """Return the name of each run's dataset: its file in configs/datasets/, or that of the user's own pictures.

    If two sets of pictures have the same name, the name of the parent folder precedes it.
    """
    named: dict[str, str] = {}
    if any(result["dataset"] != OWN_REGISTERED for result in results.values()):
        checkout = Checkout()
        named = {checkout.registered_name(name): name for name in reversed(checkout.datasets())}
    roots = {folder: _root(result) for folder, result in results.items() if result["dataset"] == OWN_REGISTERED}
    digests: dict[tuple[str, str], set] = defaultdict(set)  # name, classes -> digests of the test images
    for folder, root in roots.items():
        result = results[folder]
        digests[_name(root), result["subsample"]].add((root, result.get("data_sha256", {}).get("test")))
    found = {folder: named.get(result["dataset"], result["dataset"]) for folder, result in results.items()}
    for folder, root in roots.items():
        alike = digests[_name(root), results[folder]["subsample"]]
        is_ambiguous = len({path for path, _ in alike}) > 1 and len({digest for _, digest in alike}) > 1
        found[folder] = f"{root.parent.name}/{_name(root)}" if is_ambiguous else _name(root)
    return found


def _root(result: dict) -> Path:
    """Return where the user's own pictures were, on the machine of the run."""
    folder = Path(result.get("dataset_dir") or OWN_REGISTERED)
    given = Path(str(flatten(result.get("config", {})).get("DATASET.ROOT", "")))
    return folder / given.name if given.suffix.lower() in TABLES else folder


def _name(root: Path) -> str:
    return root.stem if root.suffix.lower() in TABLES else root.name
