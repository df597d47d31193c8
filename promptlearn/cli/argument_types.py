"""Types of arguments, for argparse."""

import argparse


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
