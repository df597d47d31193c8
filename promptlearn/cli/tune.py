"""`dassl tune`: search settings on the validation images, and test the best ones."""

import argparse
import contextlib
from pathlib import Path

from tabulate import tabulate

from basics import UserError, known_spelling, mkdir_if_missing, notify
from dassl.config import decode
from promptlearn.cli.parsing import command_parser, integer_from
from promptlearn.experiments import Checkout
from promptlearn.experiments.checkout import refuse_unknown
from promptlearn.experiments.planning import choose_config, configs_of, label_of
from promptlearn.experiments.requested_datasets import check_datasets, choose_dataset, is_demo
from promptlearn.experiments.run_files import Result, read_checked
from promptlearn.experiments.shots import parse_shots, shots_options

HELP = """\
Search settings of one method on the validation images of a dataset, with Optuna. The best trial is then tested, once.

Every trial is a run of train.py, kept in OUTPUT/tune/... next to the study. The same command resumes an interrupted
search; with more --trials, it continues. Needs the extra "tune".

examples:
  dassl tune --trainer RPO --vary OPTIM.LR 0.005 0.01 0.02 --vary TRAINER.RPO.K 4 8
  dassl tune --trainer CoOp --dataset braille --sampler tpe --trials 20 --vary OPTIM.LR 1e-4:1e-1
"""


def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    space = {key: choices(key, values) for key, *values in args.vary}
    checkout = Checkout(args.checkout)
    data = Path(args.data).expanduser().resolve() if args.data else None
    chosen = choose_dataset(args.dataset, checkout, "--dataset") if args.dataset else None
    settings = checkout.settings("few_shot", demo=is_demo([chosen] if chosen else [], data))
    args.trainer = known_spelling(args.trainer, checkout.trainers())
    refuse_unknown("trainer", [args.trainer], checkout.trainers())
    dataset = chosen or choose_dataset(settings["datasets"][0], checkout)
    output = Path(args.output).expanduser().resolve() if args.output else checkout.folder / "output"
    check_datasets([dataset], args.classes == "base", checkout, output, data, settings["builtin"])
    configs = configs_of(checkout, args.trainer, args.config, settings["configs"].get(args.trainer))
    config = choose_config(configs, dataset.key, args.shots)
    folder = output / "tune" / dataset.name / f"shots_{args.shots}" / args.trainer / config / f"seed{args.seed}"
    mkdir_if_missing(folder)
    root = dataset.root or data
    command = ["--root", str(root)] if root else []
    command += ["--seed", str(args.seed), "--trainer", args.trainer]
    command += ["--dataset-config-file", dataset.config]
    command += ["--config-file", f"configs/trainers/{args.trainer}/{config}.yaml"]
    command += [*shots_options(args.shots), "DATASET.SUBSAMPLE_CLASSES", args.classes]

    from promptlearn.experiments import tuning  # imports optuna

    search = tuning.Search(space, command, folder, args.sampler, args.trials, args.prune, args.seed)

    def report(trained: tuning.Trained) -> None:
        notify(f"{label_of(trained.settings.items())}: {trained.accuracy:.2f}% on the validation images")

    trained = tuning.run_search(search, checkout, report)
    best, rows = trained[0], [[*each.settings.values(), f"{each.accuracy:.2f}"] for each in trained]
    print(tabulate(rows, [*space, "validation"], tablefmt="simple", disable_numparse=True) + "\n")
    tested = folder / "best"
    options = [word for setting in best.settings.items() for word in setting]
    arguments = [*command, "--eval-only", "--model-dir", str(best.folder), "--output-dir", str(tested), *options]
    with contextlib.closing(tuning.Starter(checkout)) as start:
        status, message = tuning.run_train(start, arguments, None, tested)
    result = read_checked(tested / "results.json", Result) if status == 0 else None
    if result is None or result["metrics"] is None:
        raise UserError(f"{tested}: expected the test of the best trial, got exit status {status}. {message}")
    print(f"best: {label_of(best.settings.items())}")
    print(f"validation {best.accuracy:.2f}%, test {result['metrics']['accuracy']:.2f}%")
    notify(f"the trials are in {folder}")
    return 0


def choices(key: str, values: list[str]) -> list | tuple[float, float]:
    """Return values to choose from, or the range LOW:HIGH."""
    if len(values) == 1 and values[0].count(":") == 1:
        try:
            low, high = map(float, values[0].split(":"))
        except ValueError:
            raise UserError(f"--vary {key}: expected LOW:HIGH, two numbers, got {values[0]}.") from None
        if not 0 < low < high:
            raise UserError(f"--vary {key}: expected LOW:HIGH with 0 < LOW < HIGH, got {values[0]}.")
        return low, high
    if not values:
        raise UserError(f"--vary {key}: expected the values to try after the key, got none.")
    return [str(decode(value)) for value in values]


def parser() -> argparse.ArgumentParser:
    p = command_parser("tune", HELP)
    add = p.add_argument
    add("--trainer", required=True, metavar="METHOD", help="a folder of configs/trainers/")
    add("--vary", nargs="+", action="append", required=True, metavar=("KEY", "VALUE"), help="values to try for a "
        "setting, or a range LOW:HIGH (logarithmic); repeat for several settings")  # fmt: skip
    add("--dataset", metavar="DATASET", help="a file of configs/datasets/ without .yaml, or your own: a folder, "
        "a CSV file, or a yaml file (default: digits, in the demo)")  # fmt: skip
    add("--sampler", choices=("grid", "random", "tpe"), default="grid", help="(default: grid, every combination)")
    add("--trials", type=integer_from(1), metavar="N", help="trials in all (default: the whole grid)")
    add("--prune", action="store_true", help="validate after each epoch, and stop trials below the median")
    add("--shots", type=parse_shots, default=16, metavar="N", help="training images per class, a percentage of them "
        "(10%%), or all (default: 16)")  # fmt: skip
    add("--classes", choices=("all", "base"), default="all", help="train on all or on the base classes (default: all)")
    add("--seed", type=integer_from(0), default=1, metavar="S", help="of all trials (default: 1)")
    add("--data", metavar="FOLDER", help="the folder that holds the datasets (default: the built-in demo)")
    add("--config", metavar="NAME", help="a file of configs/trainers/METHOD/ without .yaml (default: as in few_shot)")
    add("--output", metavar="FOLDER", help="for the trials (default: output)")
    add("--checkout", metavar="FOLDER", help="where train.py and configs/ are, if not here or installed")
    return p
