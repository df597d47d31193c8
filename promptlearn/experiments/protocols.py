"""Protocols as a few declared lines, and the runs that they are made of."""

from dataclasses import dataclass
from pathlib import Path

from promptlearn.experiments.checkout import Checkout

ZERO_SHOT = "ZeroshotCLIP"  # a row of every table
UNTRAINED = (ZERO_SHOT, "ZeroshotCLIP2")  # train nothing, so one seed and one number of shots say all


@dataclass(frozen=True)
class Stage:
    """One run of every row and seed."""

    folder: str  # below OUTPUT
    column: str  # where its accuracy stands in the table
    subsample: str = "all"  # DATASET.SUBSAMPLE_CLASSES
    model_of: str = ""  # the stage whose trained model is only tested here; empty: this stage trains
    dataset: str = ""  # a file of configs/datasets/, without .yaml; empty: the row's


@dataclass(frozen=True)
class Protocol:
    """What is trained and tested. How often and with what is in configs/protocols/<name>.yaml."""

    name: str  # of the verb, the table and the file in configs/protocols/
    title: str
    stages: tuple[Stage, ...]
    transfer: bool = False  # data sets are targets: each tests what was trained on the source, and a mean is formed
    by_shots: bool = False  # the table has a column for each number of shots

    def on(self, targets: list[str]) -> tuple[Stage, ...]:
        """All stages, those of the targets included."""
        trained = self.stages[0].folder
        tests = tuple(Stage(f"{self.name}/test_{name}", name, model_of=trained, dataset=name) for name in targets)
        return self.stages + tests

    @property
    def harmonic(self) -> bool:
        """Whether the table has the harmonic mean of base and new."""
        return {"base", "new"} <= {stage.column for stage in self.stages}


def base_and_new(name: str) -> tuple[Stage, Stage]:
    return (
        Stage(f"{name}/train_base", "base", subsample="base"),
        Stage(f"{name}/test_new", "new", subsample="new", model_of=f"{name}/train_base"),
    )


# Two protocols test what was trained on the source, which takes longest of all: it is trained once for both.
ON_SOURCE = (Stage("train_source", "source"),)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("base2new", "train on base classes, test on base and new classes", base_and_new("base2new")),
        Protocol("few_shot", "all classes, from 1 to 16 shots", (Stage("few_shot/train", "all"),), by_shots=True),
        Protocol("cross_dataset", "train on a source, test on other data sets", ON_SOURCE, transfer=True),
        Protocol("domain_generalization", "train on a source, test on its shifts", ON_SOURCE, transfer=True),
        Protocol("variance", "base to new with ten seeds: the spread", base_and_new("variance")),
        Protocol("ablation", "base to new with a method's settings varied", base_and_new("ablation")),
    )
}


@dataclass(frozen=True)
class Row:
    """What is trained, but for the seed."""

    dataset: str  # a file of configs/datasets/, without .yaml
    trainer: str
    config: str  # a file of configs/trainers/<trainer>/, without .yaml
    shots: int | None  # None: a line over several
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
    registered_name: str | None = None  # of its data set; None when only results are read and no checkout is at hand
    source: "Job | None" = None  # the job whose model is tested
    overrides: tuple[tuple[str, str], ...] = ()  # KEY VALUE pairs that the row's variant stands for

    def __str__(self) -> str:
        what = f"{self.row.trainer} {self.row.variant}".strip()
        shots = f"{self.row.shots} shot{'s' if self.row.shots != 1 else ''}"
        return f"{what} on {self.row.dataset}, {shots}, seed {self.seed}, {self.stage.column}"

    @property
    def dataset(self) -> str:
        """The file in configs/datasets/ of the data set it is run on."""
        return self.stage.dataset or self.row.dataset

    @property
    def request(self) -> dict:
        """What a results.json must say to be this job's."""
        request = {
            "trainer": self.row.trainer,
            "seed": self.seed,
            "shots": self.row.shots,
            "subsample": self.stage.subsample,
        }
        return request | ({"dataset": self.registered_name} if self.registered_name else {})

    def command(self, checkout: Checkout, data: Path | None) -> list[str]:
        """The arguments after `python`, for a call from the checkout."""
        row = self.row
        command = ["train.py"]
        command += ["--root", checkout.shown(data)] if data else []
        command += ["--seed", str(self.seed), "--trainer", row.trainer]
        command += ["--dataset-config-file", f"configs/datasets/{self.dataset}.yaml"]
        command += ["--config-file", f"configs/trainers/{row.trainer}/{row.config}.yaml"]
        command += ["--output-dir", checkout.shown(self.folder)]
        command += ["--model-dir", checkout.shown(self.source.folder)] if self.source else []
        command += ["--eval-only"] if self.source or row.trainer in UNTRAINED else []
        command += ["DATASET.NUM_SHOTS", str(row.shots), "DATASET.SUBSAMPLE_CLASSES", self.stage.subsample]
        return command + [word for setting in self.overrides for word in setting]


def jobs_of(
    stages: tuple[Stage, ...],
    row: Row,
    seed: int,
    output: Path,
    registered_names: dict[str, str] | None = None,
    overrides: tuple[tuple[str, str], ...] = (),
) -> list[Job]:
    """The jobs of one row and seed, stage after stage. `registered_names`: of each file in configs/datasets/."""
    jobs: dict[str, Job] = {}
    for stage in stages:
        source = None if row.trainer in UNTRAINED else jobs.get(stage.model_of)
        folder = output / stage.folder / row.folder / f"seed{seed}"
        name = registered_names[stage.dataset or row.dataset] if registered_names else None
        jobs[stage.folder] = Job(row, seed, stage, folder, name, source, overrides)
    return list(jobs.values())
