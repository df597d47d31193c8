"""From pictures to a saved model: one run of train.py with the settings that suit the pictures and this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from basics import Reported, UserError, error_in, for_this_process, keep_outside, known_spelling, notify
from dassl.config import flatten, read_yaml
from promptlearn.experiments import Checkout
from promptlearn.experiments.checkout import refuse_unknown
from promptlearn.experiments.planning import choose_config, configs_of

if TYPE_CHECKING:
    from promptlearn.classifier import PromptedClassifier

DATASET = "image_folder"
DEFAULT_BACKBONE, BUILT_IN_BACKBONE = "ViT-B/16", "tiny"
RUN = "run"  # folder of the training in that of the model


@dataclass
class FitOptions:
    """What to train, and how.

    Attributes:
        source: a folder of class folders, or a CSV file; see datasets/image_folder.py.
        output: the folder of the model; its training is in the folder `run` in it.
        method: a folder of configs/trainers/.
        backbone: a name or weights file; "" for ViT-B/16, or the built-in tiny CLIP if its weights are unavailable.
        shots: training images per class; None for all.
        epochs: None for those of the method's config.
        prompt: the text around a class name, with {} for the name; "" for that of the method's config.
        settings: further settings, {dotted key: value}.
    """

    source: Path
    output: Path
    method: str = "RPO"
    backbone: str = ""
    shots: int | None = None
    epochs: int | None = None
    seed: int = 1
    prompt: str = ""
    settings: dict[str, object] = field(default_factory=dict)


def fit(options: FitOptions, quiet: bool = False) -> PromptedClassifier:
    """Return train, and save the model. The same call resumes a training that was interrupted.

    Args:
        quiet: without the notes and the progress bar of train.py, whose whole output is in run/log.txt.

    Raises:
        UserError: an unknown method, no pictures, or train.py failed; the message is train.py's. Unless `quiet`, it is
            on stderr already, and the error is `Reported`.
    """
    checkout = Checkout()
    if not options.source.expanduser().exists():
        raise UserError(
            f"{options.source}: expected a folder of class folders or a CSV file, got nothing. Check the path."
        )
    keep_outside(options.output.expanduser(), options.source.expanduser(), "--output")
    options.method = known_spelling(options.method, checkout.trainers())
    refuse_unknown("method", [options.method], checkout.trainers())
    run = options.output / RUN
    command = [sys.executable, str(checkout.root / "train.py"), *arguments(options, checkout, run)]
    environment = os.environ | for_this_process() | ({"TQDM_DISABLE": "1"} if quiet else {})
    with subprocess.Popen(
        command,
        cwd=checkout.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        errors="replace",
    ) as child:
        # Its messages about the pictures, such as class names that say nothing to CLIP, and its bar go to our stderr.
        errors = error_in(child.stderr.read().strip() if child.stderr else "").removeprefix("error: ")
    if child.returncode == UserError.status and not quiet:
        raise Reported
    if child.returncode:
        raise UserError(
            errors or f"{run}: train.py ended with exit status {child.returncode}. Its log is in log.txt there."
        )
    from promptlearn.classifier import PromptedClassifier  # imports torch

    classifier = PromptedClassifier.from_pretrained(run)
    classifier.save_pretrained(options.output)
    return classifier


def arguments(options: FitOptions, checkout: Checkout, run: Path) -> list[str]:
    """Return the arguments of train.py."""
    backbone = options.backbone or available_backbone()
    if backbone == BUILT_IN_BACKBONE:
        config = "tiny"
    else:
        default = checkout.settings("few_shot", demo=False)["configs"].get(options.method)
        config = choose_config(configs_of(checkout, options.method, None, default), DATASET, options.shots or 16)
    config_file = checkout.config(f"trainers/{options.method}/{config}.yaml")
    settings: dict[str, object] = {"DATASET.NUM_SHOTS": options.shots or -1, "TEST.CALIBRATE": True}
    settings |= for_this_machine(config_file)
    if options.epochs:
        settings["OPTIM.MAX_EPOCH"] = options.epochs
    if options.prompt:
        settings["DATASET.PROMPT"] = options.prompt
    settings |= options.settings
    return [
        *("--trainer", options.method, "--config-file", str(config_file)),
        *("--dataset-config-file", str(checkout.config(f"datasets/{DATASET}.yaml"))),
        *("--root", str(options.source.expanduser().resolve()), "--output-dir", str(run.expanduser().resolve())),
        *("--backbone", backbone, "--seed", str(options.seed)),
        *(str(word) for pair in settings.items() for word in pair),
    ]


def for_this_machine(config_file: Path) -> dict[str, object]:
    """Adapt a config that was released for a GPU server to this machine: precision and data workers."""
    import torch

    from dassl.utils import available_cores

    given = flatten(read_yaml(config_file) or {})
    settings: dict[str, object] = {}
    if given.get("DATALOADER.NUM_WORKERS", 0) > available_cores():
        settings["DATALOADER.NUM_WORKERS"] = available_cores()
    if not torch.cuda.is_available():  # on a CPU, half precision is slow
        settings |= {key: "fp32" for key, value in given.items() if key.endswith(".PREC") and value != "fp32"}
    return settings


def available_backbone() -> str:
    """Return ViT-B/16 if its weights are cached or can be downloaded; else the built-in tiny CLIP, with a note."""
    from clip.sources import locate

    try:
        locate(DEFAULT_BACKBONE).fetch()
    except UserError as error:
        notify(f"note: {error}\nUsing the built-in tiny CLIP, which knows little about photographs.")
        return BUILT_IN_BACKBONE
    return DEFAULT_BACKBONE
