"""`dassl fit`: from pictures to a saved model."""

import argparse
from pathlib import Path

from basics import next_lines, notify
from promptlearn.cli.parsing import command_parser, integer_from, key_value
from promptlearn.fitting import FitOptions, fit

HELP = """\
Train a classifier on your pictures: a folder of class folders, or a CSV file with the columns path,label. Part of the
pictures is held out to measure it. The result is one folder, for `dassl predict`, `dassl export`, and Python.

The same command resumes an interrupted training.

examples:
  dassl fit photos/
  dassl fit photos/ --shots 16 --epochs 20 --prompt "a satellite photo of {}."
  dassl fit photos/ DATASET.HOLD_OUT=False DATASET.CLASS_LEVEL=2
  dassl fit table.csv --method CoOp --backbone ViT-B/32 --output birds
"""


def run(arguments: list[str]) -> int:
    args = parser().parse_intermixed_args(arguments)
    output = Path(args.output or f"models/{Path(args.source).expanduser().resolve().stem}")
    options = FitOptions(
        Path(args.source),
        output,
        args.method,
        args.backbone,
        args.shots,
        args.epochs,
        args.seed,
        args.prompt,
        dict(args.settings),
    )
    classifier = fit(options)
    trained = classifier.description.trained or {}
    names = classifier.classnames
    print(f"{len(names)} classes: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}")
    if trained.get("accuracy") is not None:
        print(f"accuracy on {trained['images']} held-out images: {trained['accuracy']:.1f}%")
    print(f"saved in {output}")
    commands = [["dassl", "predict", str(output), args.source]] if Path(args.source).is_dir() else []
    notify(next_lines([*commands, ["dassl", "export", str(output)]]))
    return 0


def parser() -> argparse.ArgumentParser:
    p = command_parser("fit", HELP)
    add = p.add_argument
    add("source", metavar="PICTURES", help="a folder of class folders, or a CSV file")
    add("--output", metavar="FOLDER", help="for the model (default: models/NAME OF PICTURES)")
    add("--method", default="RPO", metavar="NAME", help="(default: RPO)")
    add("--backbone", default="", metavar="NAME", help="a CLIP, or its weights file (default: ViT-B/16)")
    add("--shots", type=integer_from(1), metavar="N", help="training pictures per class (default: all)")
    add("--epochs", type=integer_from(1), metavar="N", help="(default: those of the method's config)")
    add("--prompt", default="", metavar="TEXT", help="the text around a class name, with {} for the name")
    add("--seed", type=integer_from(0), default=1, metavar="S", help="(default: 1)")
    add("settings", nargs="*", type=key_value, metavar="KEY=VALUE", help="other settings of train.py")
    return p
