"""`dassl serve`: a saved model as a page in the browser and as JSON over HTTP."""

import argparse

from basics import Stopped
from promptlearn.cli.parsing import add_model_options, command_parser, integer_from
from promptlearn.cli.predict import read_classes

HELP = """\
Try a saved model or a trained run in the browser: drop pictures, edit the class names, see the probabilities and where
the prompts attend. Programs get the same answers as JSON; docs/use-a-model.md shows how. Only this machine can connect,
unless --host is given. Needs the extra "serve".

examples:
  dassl serve models/photos
  dassl serve models/photos --port 9000 --classes "red fox" "gray wolf" owl
  curl -F pictures=@a.jpg -F pictures=@b.jpg http://127.0.0.1:8000/predict
"""


def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    from promptlearn.classifier import PromptedClassifier  # imports torch
    from promptlearn.serving import create_app, listen, serve

    with listen(args.host, args.port) as listener:  # before the model is loaded, which takes longer
        classifier = PromptedClassifier.from_pretrained(args.model, device=args.device, backbone=args.backbone)
        if args.classes:
            classifier.classnames = read_classes(args.classes)
        try:
            serve(create_app(classifier, args.host), listener)
        except Stopped as stop:  # there is nothing to resume
            return stop.status
    return 0


def parser() -> argparse.ArgumentParser:
    p = command_parser("serve", HELP)
    add = p.add_argument
    add("model", metavar="MODEL", help="a saved model, a run, a checkpoint in it, or owner/name on the Hub")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0 for all networks (default: 127.0.0.1)")
    add("--port", type=integer_from(0), default=8000, metavar="N", help="0 for a free one (default: 8000)")
    add_model_options(add)
    return p
