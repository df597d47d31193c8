"""States in one line what a model was trained on and what it is tested on."""

from collections.abc import Collection, Mapping
from pathlib import Path

from basics import UserError, read_json
from dassl.config import flatten, read_yaml

NAMES = 3  # of classes that the line shows


def describe_data(settings: Mapping, classnames: Collection[str], trained: bool) -> str:
    """Describe the dataset of a flat config: its name and folder, its classes, and the shots if it was trained on.

    Args:
        classnames: empty if they are not known.
    """
    name, root, part = (settings.get(f"DATASET.{key}", "") for key in ("NAME", "ROOT", "SUBSAMPLE_CLASSES"))
    parts = [f"{name} in {root}" if root else str(name)]
    if classnames:
        names = ", ".join(list(map(str, classnames))[:NAMES]) + (", ..." if len(classnames) > NAMES else "")
        kind = "" if part == "all" else f"{part} "
        parts.append(f"{len(classnames)} {kind}class{'es' * (len(classnames) > 1)}: {names}")
    elif part != "all":
        parts.append(f"{part} classes")
    shots, fraction = settings.get("DATASET.NUM_SHOTS", -1), settings.get("DATASET.TRAIN_FRACTION", 1.0)
    if trained:
        few = f"{shots} shot{'s' * (shots > 1)}"
        parts.append(few if shots > 0 else "all images" if fraction == 1 else f"{100 * fraction:g}% of images")
    return f"{parts[0]} ({'; '.join(parts[1:])})" if parts[1:] else parts[0]


def describe_training(folder: str | Path) -> str:
    """Describe what the model in a run's folder was trained on, by its config.yaml and model.json."""
    try:
        settings = flatten(read_yaml(Path(folder) / "config.yaml"))
    except UserError:
        return f"unknown data (no config.yaml in {folder})"
    try:
        description = read_json(Path(folder) / "model.json")
        names = description.get("classnames") if isinstance(description, dict) else None
    except UserError:  # such as that of a method that only this user has
        names = None
    return describe_data(settings, names if isinstance(names, list) else [], trained=True)
