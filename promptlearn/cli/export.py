"""`dassl export`: a saved model as one file that runs without this package."""

import argparse
from pathlib import Path

from basics import notify
from promptlearn.cli.parsing import command_parser

HELP = """\
Write a saved model or a trained run to one file: ONNX, or a program of torch.export. Class names and preprocessing are
in its metadata. The file is run and compared with the model before it counts as exported; docs/use-a-model.md shows a
program that needs only onnxruntime. Needs the extra "export".

examples:
  dassl export models/photos
  dassl export models/photos --format pt2 --output photos.pt2
"""


def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    from promptlearn.classifier import PromptedClassifier  # imports torch
    from promptlearn.exporting import export

    path = Path(args.output or Path(args.model) / f"model.{args.format}")
    classifier = PromptedClassifier.from_pretrained(args.model, device="cpu", backbone=args.backbone)
    if args.classes:
        classifier.classnames = args.classes
    done = export(classifier, path)
    print(f"{done.path}: {done.megabytes:.1f} MB, largest difference of logits {done.difference:.1e}")
    torch_ms, file_ms = done.milliseconds
    print(f"one image: {torch_ms:.1f} ms here in torch, {file_ms:.1f} ms from the file")
    notify(f"classes: {', '.join(classifier.classnames[:8])}{' ...' if len(classifier.classnames) > 8 else ''}")
    return 0


def parser() -> argparse.ArgumentParser:
    p = command_parser("export", HELP)
    add = p.add_argument
    add("model", metavar="MODEL", help="the folder of a saved model or of a run, or a checkpoint in it")
    add("--format", choices=("onnx", "pt2"), default="onnx", help="ONNX, or torch.export (default: onnx)")
    add("--output", metavar="FILE", help="(default: model.onnx or model.pt2 in the folder of the model)")
    add("--classes", nargs="+", metavar="NAME", help="other class names")
    add("--backbone", metavar="FILE", help="weights of the backbone, if they are not found under its name")
    return p
