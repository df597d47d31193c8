"""`dassl predict`: classify pictures with a saved model."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from basics import UserError, above_bars, notify, show_progress
from basics.csv_files import csv_text
from promptlearn.cli.parsing import add_model_options, command_parser, integer_from

if TYPE_CHECKING:
    from promptlearn.classifier import Predictions, PromptedClassifier

HELP = """\
Classify pictures with a saved model or a trained run. Folders stand for all pictures below them. Pictures that cannot
be read are reported and counted. If the folders of the pictures are named after classes, the accuracy and a confusion
matrix follow. With --reject, pictures that probably show none of the classes are marked as rejected.

examples:
  dassl predict models/photos picture.jpg
  dassl predict models/photos holiday/ --top 3 --format csv > holiday.csv
  dassl predict models/photos holiday/ --classes "red fox" "gray wolf" owl
  dassl predict models/photos holiday/ --reject energy
"""

LARGEST_MATRIX = 20  # classes whose confusion matrix is printed


def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    from promptlearn.classifier import PromptedClassifier  # imports torch
    from promptlearn.pictures import expand

    classifier = PromptedClassifier.from_pretrained(args.model, device=args.device, backbone=args.backbone)
    if args.classes:
        classifier.classnames = read_classes(args.classes)
    if args.reject and args.reject not in classifier.calibration.thresholds:
        raise UserError(
            f"--reject: expected a model with a rejection threshold for its classes, got {args.model} without one. "
            "Train it with TEST.CALIBRATE True and validation images, and do not change its classes."
        )
    files = [str(path) for path in expand(args.pictures)]
    unreadable: dict[str, str] = {}
    counted: Counter[tuple[str, str]] = Counter()  # (true class, predicted class)
    rejected = 0
    options = {"top_k": args.top, "batch_size": args.batch_size, "reject": args.reject or "max_softmax"}
    with writer(args.format) as write, show_progress(total=len(files), unit=" pictures") as bar:
        for predictions in classifier.stream(files, unreadable, **options):
            write(rows(predictions, bool(args.reject)))
            rejected += int(predictions.rejected.sum()) if args.reject else 0
            counted.update(zip(map(folder_name, predictions.paths), predictions.top, strict=True))
            bar.update(len(predictions))
    for path, reason in unreadable.items():
        notify(f"skipped: {reason if path in reason else f'{path}: {reason}'}")
    if unreadable:
        notify(f"{len(unreadable)} of {len(files)} pictures could not be read")
    if args.reject:
        notify(f"rejected: {rejected} of {counted.total()} pictures")
    if not counted:
        raise UserError(f"expected pictures, got {len(files)} files, none of which could be read. Name others.")
    print_accuracy(classifier, counted)
    return 0


def folder_name(path: str) -> str:
    """Return the name of a picture's folder, as a class name."""
    return Path(path).resolve().parent.name.replace("_", " ")


def rows(predictions: "Predictions", with_rejection: bool) -> list[dict]:
    """Return a row per picture: its path, the class, its probability, further classes with theirs, and rejection."""
    found = []
    for path, names, shares in zip(
        predictions.paths, predictions.classnames, predictions.probabilities.tolist(), strict=True
    ):
        row: dict = {"path": path}
        for place, (name, share) in enumerate(zip(names, shares, strict=True), start=1):
            number = str(place) if place > 1 else ""
            row |= {f"class{number}": name, f"probability{number}": round(share, 4)}
        found.append(row)
    if with_rejection:
        for row, score, rejected in zip(found, predictions.scores.tolist(), predictions.rejected.tolist(), strict=True):
            row |= {"score": round(score, 4), "rejected": rejected}
    return found


@contextmanager
def writer(form: str) -> Iterator:
    """Return a function that writes rows to stdout as they come: a table, CSV, or JSON lines."""
    first = True

    def write(found: list[dict]) -> None:
        nonlocal first
        if form == "jsonl":
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        elif form == "csv":
            text = csv_text(found)
            text = text if first else text.partition("\n")[2]
        else:
            widest = max(len(row["path"]) for row in found)
            text = "".join(f"{row['path']:{widest}}  {shares(row)}\n" for row in found)
        first = False
        with above_bars(sys.stdout):
            sys.stdout.write(text)

    yield write


def shares(row: dict) -> str:
    """Format the classes of a row with their probabilities in percent, and whether it is rejected."""
    values = [value for key, value in row.items() if key.startswith(("class", "probability"))]
    text = ", ".join(f"{name} {100 * share:.1f}%" for name, share in zip(values[::2], values[1::2], strict=True))
    return f"{text}, rejected" if row.get("rejected") else text


def read_classes(given: list[str]) -> list[str]:
    """Return class names as given, or the lines of a single text file."""
    if len(given) == 1 and Path(given[0]).is_file():
        try:
            lines = Path(given[0]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--classes {given[0]}: expected a text file, got {error}. Check the file.") from error
        return [line.strip() for line in lines if line.strip()]
    return given


def print_accuracy(classifier: "PromptedClassifier", counted: Counter) -> None:
    """Print accuracy and confusion matrix, if all pictures are in folders that are named after classes."""
    names = classifier.classnames
    known = {name.replace("_", " ") for name in names}
    if not all(true in known for true, _ in counted):
        return
    plain = [name.replace("_", " ") for name in names]
    total = sum(counted.values())
    right = sum(count for (true, predicted), count in counted.items() if true == predicted.replace("_", " "))
    notify(f"accuracy, judged by the folders' names: {100 * right / total:.1f}% of {total}")
    if len(names) <= LARGEST_MATRIX:
        table = [
            [true, *(counted[true, predicted] for predicted in names)]
            for true in plain
            if any(counted[true, p] for p in names)
        ]
        notify(tabulate(table, ["folder \\ predicted", *names], tablefmt="simple"))


def parser() -> argparse.ArgumentParser:
    p = command_parser("predict", HELP)
    add = p.add_argument
    add("model", metavar="MODEL", help="the folder of a saved model or of a run, or a checkpoint in it")
    add("pictures", nargs="+", metavar="PATH", help="picture files and folders")
    add("--top", type=integer_from(1), default=1, metavar="K", help="classes per picture (default: 1)")
    add("--format", choices=("table", "csv", "jsonl"), default="table", help="(default: table)")
    add("--reject", choices=("max_softmax", "energy"), help="mark pictures of other classes by this score")
    add("--batch-size", type=integer_from(1), default=32, metavar="N", help="pictures at a time (default: 32)")
    add_model_options(add)
    return p
