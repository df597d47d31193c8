"""Class names that were folder names: what CLIP cannot understand in them, and what to write instead."""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from basics import notify

SYNSET = re.compile(r"n\d{8}")  # an ImageNet class, such as n01440764
NUMBERED = re.compile(r"(?:n\d{8}|\d+)[\s._-]+(?=\D)")  # 001.Black_footed_Albatross, n02085620-Chihuahua
OPAQUE = re.compile(r"(?:(?:class|label|category|cat|type|group|folder|id|c|n)[\s._-]*)?\d+", re.IGNORECASE)


def class_names(folders: Iterable[str], names_file: str, strip_numbers: bool = False) -> dict[str, str]:
    """Return the class names of folders (or labels): ``_`` as spaces, ImageNet's synsets by name.

    Prints a note on names that say nothing to CLIP, and on what was translated.

    Args:
        folders: names of the folders, in the order of the labels.
        names_file: where the user can name the classes, for the note.
        strip_numbers: remove the number that a name starts with.
    """
    folders = list(folders)
    synsets = {name: found for name in folders if SYNSET.fullmatch(name) and (found := synset_names().get(name))}
    numbered = [name for name in folders if NUMBERED.match(name)]
    names = {
        name: synsets.get(name, (NUMBERED.sub("", name, count=1) if strip_numbers else name).replace("_", " "))
        for name in folders
    }
    if synsets:
        notify(
            f"Note: translated {len(synsets):,} ImageNet synsets: {_some(f'{k} is {v}' for k, v in synsets.items())}"
        )
    opaque = [name for name in names.values() if OPAQUE.fullmatch(name)]
    if opaque:
        notify(
            f"Note: {len(opaque):,} of {len(names):,} class names say nothing to CLIP, which reads them as words: "
            f"{_some(opaque)}. Name the classes in {names_file}, with a line for each class: the folder (or label), a "
            "tab, and the class name."
        )
    if numbered and not strip_numbers:
        notify(
            f"Note: {len(numbered):,} of {len(names):,} class names start with a number, which CLIP reads as a word: "
            f"{_some(numbered)}. To remove the numbers, set DATASET.STRIP_NUMBERS True."
        )
    return names


@cache
def synset_names() -> dict[str, str]:
    """Return the names of ImageNet's synsets: CLIP's own for the 1,000 of ILSVRC, WordNet's first lemma for the others.

    The lists are files of timm and a table of open_clip, which are requirements; nothing is downloaded.
    """
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    timm = find_spec("timm")
    folders = timm.submodule_search_locations if timm else None
    if not folders:
        return {}
    info = Path(folders[0], "data", "_info")
    lines = (info / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    names = {synset: lemmas.split(",")[0] for synset, lemmas in (line.split("\t", 1) for line in lines)}
    synsets = (info / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    return names | dict(zip(synsets, IMAGENET_CLASSNAMES, strict=True))


def alike_names(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of class names that differ only in case, spaces, punctuation, or a final s."""
    groups = defaultdict(list)
    for name in names:
        groups[re.sub(r"[\W_]+", "", name).casefold().removesuffix("s") or name].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _some(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")
