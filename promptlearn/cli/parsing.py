"""The parsers of the commands, and types and arguments that several of them have."""

import argparse
from collections.abc import Callable


def command_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of `dassl <verb>`. Its help shows the lines of the description as they are."""
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(
        prog=f"dassl {verb}", description=description, formatter_class=form, allow_abbrev=False
    )


def add_folders(add: Callable, what: str) -> None:
    """Add the folders of runs that a command reads, and --output, for `what` it writes."""
    add("folders", nargs="*", default=["output"], metavar="DIR", help="folders of runs (default: output)")
    add("--output", metavar="FOLDER", help=f"for the {what} (default: DIR; for several, report)")


def add_model_options(add: Callable) -> None:
    """Add the options of commands that load a model for other classes or on a device."""
    add("--classes", nargs="+", metavar="NAME", help="other class names, or a text file with one per line")
    add("--device", metavar="NAME", help="cpu, cuda, ... (default: the GPU if there is one)")
    add("--backbone", metavar="FILE", help="weights of the backbone, if they are not found under its name")


def integer_from(least: int):
    """Return an argparse type: an integer that is not below `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, got {text!r}")
        return int(text)

    return parse


def key_value(text: str) -> tuple[str, str]:
    """Split KEY=VALUE, as an argparse type. A value may contain "=" itself."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    return key, value
