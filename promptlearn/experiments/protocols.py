"""Declares the protocols and the runs that they consist of."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from promptlearn.experiments.checkout import Checkout
from promptlearn.experiments.shots import Shots, describe_shots, in_results, shots_options

if TYPE_CHECKING:
    from promptlearn.experiments.requested_datasets import RequestedDataset

ZERO_SHOT = "ZeroshotCLIP"  # in every table
UNTRAINED = (ZERO_SHOT, "ZeroshotCLIP2")  # train nothing, so one seed and one number of shots suffice


@dataclass(frozen=True)
class Stage:
    """One run for each row and seed."""

    folder: str  # below OUTPUT
    column: str  # of the table, for its accuracy
    subsample: str = "all"  # DATASET.SUBSAMPLE_CLASSES
    model_of: str = ""  # the stage whose model is tested here; empty: this stage trains one
    dataset: str = ""  # the name of the dataset; empty: the row's


@dataclass(frozen=True)
class Protocol:
    """What is trained and tested. Seeds, shots, methods and datasets are in configs/protocols/<name>.yaml."""

    name: str  # of the command, the table and the file in configs/protocols/
    title: str
    stages: tuple[Stage, ...]
    transfer: bool = False  # train on a source, test on each target dataset, and average over the targets
    by_shots: bool = False  # the table has a column for each number of shots
    single: bool = False  # runs that were started one by one, perhaps not to be compared

    def on(self, targets: list[str]) -> tuple[Stage, ...]:
        """Return all stages, including those of the target datasets."""
        trained = self.stages[0].folder
        tests = tuple(Stage(f"{self.name}/test_{name}", name, model_of=trained, dataset=name) for name in targets)
        return self.stages + tests

    @property
    def tests_halves(self) -> bool:
        """Whether base and new classes are tested, and not all of them."""
        return any(stage.subsample != "all" for stage in self.stages)

    @property
    def harmonic(self) -> bool:
        """Whether the table has the harmonic mean of base and new accuracy."""
        return {"base", "new"} <= {stage.column for stage in self.stages}


def base_and_new(name: str) -> tuple[Stage, Stage]:
    return (
        Stage(f"{name}/train_base", "base", subsample="base"),
        Stage(f"{name}/test_new", "new", subsample="new", model_of=f"{name}/train_base"),
    )


# Training on the source takes longest, so both transfer protocols share these runs.
ON_SOURCE = (Stage("train_source", "source"),)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("base2new", "train on base classes, test on base and new classes", base_and_new("base2new")),
        Protocol("few_shot", "all classes, from 1 to 16 shots", (Stage("few_shot/train", "all"),), by_shots=True),
        Protocol("cross_dataset", "train on a source, test on other datasets", ON_SOURCE, transfer=True),
        Protocol("domain_generalization", "train on a source, test on variants of it", ON_SOURCE, transfer=True),
        Protocol("variance", "base to new with ten seeds, to see the spread", base_and_new("variance")),
        Protocol("ablation", "base to new with varied settings of a method", base_and_new("ablation")),
    )
}


@dataclass(frozen=True)
class Row:
    """What is trained, except for the seed; one row of the table."""

    dataset: str  # its name: a file in configs/datasets/ without .yaml, or that of the user's own pictures
    trainer: str
    config: str  # a file in configs/trainers/<trainer>/, without .yaml
    shots: Shots | None  # None: a row over several
    variant: str = ""  # settings that differ from the config, as a label: K=4,MASK=False

    @property
    def folder(self) -> Path:
        config = f"{self.config},{self.variant}" if self.variant else self.config
        return Path(self.dataset, f"shots_{self.shots}", self.trainer, config)


@dataclass(frozen=True)
class Job:
    """One call of train.py."""

    row: Row
    seed: int
    stage: Stage
    folder: Path  # its --output-dir
    data: "RequestedDataset | None" = None  # that it runs on; None if only results are read
    source: "Job | None" = None  # the job that trains the model tested here
    overrides: tuple[tuple[str, str], ...] = ()  # (key, value): the method's text, then the row's variant
    is_single: bool = False  # started by hand: its row was read from its results.json

    def __str__(self) -> str:
        what = f"{self.row.trainer} {self.row.variant}".strip()
        drawn = "" if self.row.trainer in UNTRAINED else f", {describe_shots(self.shots)}, seed {self.seed}"
        return f"{what} on {self.row.dataset}{drawn}, {self.stage.column}"

    @property
    def dataset(self) -> str:
        """The name of the dataset that it runs on."""
        return self.stage.dataset or self.row.dataset

    @property
    def shots(self) -> Shots:
        assert self.row.shots is not None  # only a row of the table has several
        return self.row.shots

    @property
    def request(self) -> dict:
        """What a results.json must contain to be this job's."""
        if self.is_single:
            return {"trainer": self.row.trainer, "subsample": self.stage.subsample}
        request = {"trainer": self.row.trainer, "seed": self.seed, "subsample": self.stage.subsample}
        request |= in_results(self.shots)
        return request | ({"dataset": self.data.registered_name} if self.data else {})

    def arguments(self, checkout: Checkout, data: Path | None) -> list[str]:
        """Return the arguments of train.py, called from `checkout.folder`; `data`: the DATA folder."""
        row, root = self.row, (self.data.root if self.data else None) or data
        command = ["--root", checkout.shown(root)] if root else []
        command += ["--seed", str(self.seed), "--trainer", row.trainer]
        command += ["--dataset-config-file", self.data.config if self.data else f"configs/datasets/{self.dataset}.yaml"]
        command += ["--config-file", f"configs/trainers/{row.trainer}/{row.config}.yaml"]
        command += ["--output-dir", checkout.shown(self.folder)]
        command += ["--model-dir", checkout.shown(self.source.folder)] if self.source else []
        command += ["--eval-only"] if self.source or row.trainer in UNTRAINED else []
        command += [*shots_options(self.shots), "DATASET.SUBSAMPLE_CLASSES", self.stage.subsample]
        return command + [word for setting in self.overrides for word in setting]


def jobs_of(
    stages: tuple[Stage, ...],
    row: Row,
    seed: int,
    output: Path,
    datasets: "dict[str, RequestedDataset] | None" = None,
    overrides: tuple[tuple[str, str], ...] = (),
    prompts: dict[str, str] | None = None,
) -> list[Job]:
    """Return the jobs of one row and seed, stage by stage.

    Args:
        datasets: those of the row and the stages, by name.
        overrides: settings of the row's variant, as (key, value).
        prompts: a dataset's key -> the method's template for it, where it is not the dataset's.
    """
    jobs: dict[str, Job] = {}
    for stage in stages:
        source = None if row.trainer in UNTRAINED else jobs.get(stage.model_of)
        folder = output / stage.folder / row.folder / f"seed{seed}"
        data = datasets[stage.dataset or row.dataset] if datasets else None
        prompt = (("DATASET.PROMPT", prompts[data.key]),) if prompts and data and data.key in prompts else ()
        jobs[stage.folder] = Job(row, seed, stage, folder, data, source, (*prompt, *overrides))
    return list(jobs.values())
