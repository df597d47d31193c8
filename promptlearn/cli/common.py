"""What several verbs share."""

import argparse


def integer_from(least: int):
    """Return an argparse type: an integer that is not below `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, got {text!r}")
        return int(text)

    return parse
