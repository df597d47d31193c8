"""What several verbs share."""

import argparse
import sys


def integer_from(least: int):
    """An argparse type: an integer that is not below `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, found {text!r}")
        return int(text)

    return parse


def say(line: str) -> None:
    """Progress notes go to stderr; stdout is for tables and commands."""
    print(line, file=sys.stderr, flush=True)
