"""How many training images a run gets: a number for each class ("shots"), a percentage of each class, or all.

The command line, configs/protocols/*.yaml, folder names, and summary.json use 16, "10%", and "all".
"""

import re

from basics import UserError

ALL = "all"
Shots = int | str  # a number, a percentage such as "10%", or ALL

# Sort keys of percentages and ALL, which follow all numbers; a number has at most 9 digits.
PERCENTAGES, LAST = 1e9, 2e9


def parse_shots(given: object, source: str = "--shots") -> Shots:
    """Parse shots from a word of the command line, or from a value or key in a file; "100%" is ALL.

    Raises:
        UserError: it is something else; the message starts with `source`.
    """
    text = str(given)
    if text == ALL:
        return ALL
    if re.fullmatch(r"[0-9]{1,9}", text) and int(text) >= 1:
        return int(text)
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?%", text) and 0 < float(text[:-1]) <= 100:
        return ALL if float(text[:-1]) == 100 else f"{float(text[:-1]):g}%"
    raise UserError(
        f"{source}: expected training images per class (1 or more), a percentage of them (above 0% and at most 100%), "
        f'or "all", got "{text}".'
    )


def shots_order(shots: Shots) -> float:
    """Return the sort key of shots: numbers first, then percentages, then ALL."""
    if isinstance(shots, int):
        return shots
    return LAST if shots == ALL else PERCENTAGES + float(shots[:-1])


def describe_shots(shots: Shots) -> str:
    """Describe shots in words, for headings and messages: "1 shot", "16 shots", "10% of images", "all images"."""
    if isinstance(shots, int):
        return f"{shots} shot" + ("s" if shots > 1 else "")
    return "all images" if shots == ALL else f"{shots} of images"


def in_results(shots: Shots) -> dict[str, float]:
    """Return the entries for these shots in a run's results.json."""
    if isinstance(shots, int):
        return {"shots": shots, "train_fraction": 1.0}
    return {"shots": -1, "train_fraction": 1.0 if shots == ALL else float(shots[:-1]) / 100}


def from_results(result: dict) -> Shots:
    """Return the shots of a run from its results.json."""
    if result["shots"] >= 1:
        return int(result["shots"])
    fraction = result.get("train_fraction", 1.0)
    return ALL if fraction == 1 else f"{100 * fraction:g}%"


def shots_options(shots: Shots) -> list[str]:
    """Return the settings of train.py, as KEY VALUE pairs."""
    entries = in_results(shots)
    fraction = ["DATASET.TRAIN_FRACTION", str(entries["train_fraction"])] if entries["train_fraction"] < 1 else []
    return ["DATASET.NUM_SHOTS", str(entries["shots"]), *fraction]
