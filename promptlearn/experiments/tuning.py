"""Searches settings of a method on the validation images, with Optuna, and tests the best ones.

Each trial is a run of train.py in a folder named after its settings. The study is a journal next to these folders, so
the same search resumes, and a longer one continues. The test images are used once, for the winner.
"""

import contextlib
import csv
import itertools
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from basics import UserError, error_in
from promptlearn.experiments.backends import TAIL
from promptlearn.experiments.backends.local import Starter, wait_or_kill
from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.planning import label_of
from promptlearn.experiments.run_files import Result, read_checked

JOURNAL = "study.jsonl"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
POLL = 0.2  # seconds between looks at a trial's validation accuracies

Choices = list | tuple[float, float]  # values to choose from, or a range


@dataclass(frozen=True)
class Search:
    """What is searched, on what.

    Attributes:
        space: key -> the values to choose from, or a range (low, high) that is searched on a logarithmic scale.
        command: the arguments of train.py that all trials share.
        folder: of the study and its trials.
        sampler: grid, random, or tpe.
        trials: how many, in all; None: the whole grid.
        prune: stop a trial whose validation accuracy is below the median of the others after the same epoch.
    """

    space: dict[str, Choices]
    command: list[str]
    folder: Path
    sampler: str = "grid"
    trials: int | None = None
    prune: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        ranges = [key for key, choices in self.space.items() if isinstance(choices, tuple)]
        if self.sampler == "grid" and ranges:
            raise UserError(
                f"--sampler grid: expected values to choose from, got a range for {', '.join(ranges)}. List the "
                "values, or choose another sampler."
            )
        if self.trials is None and ranges:
            raise UserError(
                f"--trials: expected a number, because {', '.join(ranges)} is searched in a range, got none."
            )

    @property
    def size(self) -> int:
        """The number of trials."""
        return self.trials or math.prod(len(choices) for choices in self.space.values())

    def suggest(self, trial: Trial) -> dict[str, str]:
        """Suggest the settings of a trial."""
        settings = {}
        for key, choices in self.space.items():
            if isinstance(choices, tuple):
                settings[key] = f"{trial.suggest_float(key, *choices, log=True):.4g}"
            else:
                settings[key] = str(trial.suggest_categorical(key, choices))
        return settings

    def grid(self) -> list[dict]:
        """List all combinations, for Optuna's queue; empty for another sampler."""
        if self.sampler != "grid":
            return []
        return [dict(zip(self.space, values, strict=True)) for values in itertools.product(*self.space.values())]


@dataclass(frozen=True)
class Trained:
    """A finished trial."""

    settings: dict[str, str]
    accuracy: float  # of the validation images, in percent
    folder: Path


def run_search(
    search: Search, checkout: Checkout, report: Callable[[Trained], None] = lambda trained: None
) -> list[Trained]:
    """Run the trials that are left, and return all that were not pruned, the best one first.

    Raises:
        UserError: a trial failed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search.folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(search.folder / JOURNAL))),
        study_name="tune",
        direction="maximize",
        sampler=(TPESampler if search.sampler == "tpe" else RandomSampler)(seed=search.seed),
        pruner=optuna.pruners.MedianPruner() if search.prune else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # of a search that was interrupted
        study.tell(trial.number, state=TrialState.FAIL)
    finished = [trial.params for trial in study.get_trials(states=FINISHED)]
    for trial in study.get_trials(states=(TrialState.FAIL,)):
        if trial.params not in finished:
            study.enqueue_trial(trial.params, skip_if_exists=False)
    for params in search.grid():  # Optuna's own grid sampler needs study.optimize
        study.enqueue_trial(params, skip_if_exists=True)
    with contextlib.closing(Starter(checkout)) as start:
        while len(study.get_trials(deepcopy=False, states=FINISHED)) < search.size:
            if trained := run_trial(search, study, start):
                report(trained)
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    found = [
        Trained(each.user_attrs["settings"], each.value or 0.0, search.folder / each.user_attrs["folder"])
        for each in trials
    ]
    return sorted(found, key=lambda trained: trained.accuracy, reverse=True)


def run_trial(search: Search, study: optuna.Study, start: Starter) -> Trained | None:
    """Run the next trial; None if it was pruned.

    Raises:
        UserError: it failed. The same search tries it again.
    """
    trial = study.ask()
    settings = search.suggest(trial)
    folder = search.folder / label_of(settings.items())
    trial.set_user_attr("settings", settings)
    trial.set_user_attr("folder", folder.name)
    options = {"TEST.SPLIT": "val", "TEST.FINAL_MODEL": "best_val"} if search.prune else {"TEST.SPLIT": "val"}
    words = [word for setting in (options | settings).items() for word in setting]
    status, message = run_train(start, [*search.command, "--output-dir", str(folder), *words], trial, folder)
    result = read_checked(folder / "results.json", Result) if status == 0 else None
    if status is None:
        study.tell(trial, state=TrialState.PRUNED)
        return None
    if result is None or result["metrics"] is None:
        study.tell(trial, state=TrialState.FAIL)
        raise UserError(f"{label_of(settings.items())}: expected a finished trial, got exit status {status}. {message}")
    accuracy = result["metrics"]["accuracy"]
    study.tell(trial, accuracy)
    return Trained(settings, accuracy, folder)


def run_train(start: Starter, arguments: list[str], trial: Trial | None, folder: Path) -> tuple[int | None, str]:
    """Run train.py. Returns its exit status, None if the trial was pruned, and the last lines of its stderr."""
    with tempfile.NamedTemporaryFile() as stderr:
        process, reported = start(arguments, stderr), 0
        try:
            while process.poll() is None:
                time.sleep(POLL)
                accuracies = validation_accuracies(folder) if trial else []
                for epoch, accuracy in enumerate(accuracies[reported:], start=reported + 1):
                    assert trial is not None
                    trial.report(accuracy, epoch)
                    if trial.should_prune():
                        process.terminate()
                        wait_or_kill(process)
                        return None, ""
                reported = len(accuracies)
        except BaseException:
            process.terminate()
            wait_or_kill(process)
            raise
        stderr.seek(0)
        lines = error_in(stderr.read().decode(errors="replace")).splitlines()
        return process.returncode, "\n".join(line for line in lines if line.strip())[-80 * TAIL :]


def validation_accuracies(folder: Path) -> list[float]:
    """Return the validation accuracy after each epoch so far; empty without validation."""
    with contextlib.suppress(OSError, ValueError, KeyError, csv.Error):
        with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
            return [float(row["val_accuracy"]) for row in csv.DictReader(file)]
    return []
