"""Annotation files of data sets: lines of text, MATLAB files, and the names that belong to class folders."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from basics import MissingFile, UserError

T = TypeVar("T")
MAT_TO_JSON = Path(__file__).with_name("mat_to_json.py")


def read_annotations(path: str, parse: Callable[[str], T], expected: str) -> list[T]:
    """Read a text file with one annotation a line; empty lines are skipped.

    Args:
        path: the file, UTF-8.
        parse: makes something of a line (without spaces at its ends); raises ValueError or LookupError where it cannot.
        expected: what stands in a line, for the message.

    Returns:
        What ``parse`` made of each line, in their order.

    Raises:
        MissingFile: no such file.
        UserError: the file cannot be read, or a line is not as expected.
    """
    parsed = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(map(str.strip, file), start=1):
                if not line:
                    continue
                try:
                    parsed.append(parse(line))
                except (ValueError, LookupError) as error:
                    raise UserError(f"{path}, line {number}: expected {expected}, found {line!r}") from error
    except FileNotFoundError as error:
        raise MissingFile(f"no file at {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from error
    return parsed


def read_mat(path: str, name: str, parse: Callable[[Any], T], expected: str) -> list[T]:
    """Read one variable of a MATLAB file (before version 7.3).

    Args:
        path: the file.
        name: the variable, a vector.
        parse: makes something of an element: a number, a string (of a cell array), or a dict by field (of a struct
            array); raises ValueError, TypeError or LookupError where it cannot.
        expected: what an element is, for the message.

    Returns:
        What ``parse`` made of each element, in their order.

    Raises:
        MissingFile: no such file.
        UserError: the file cannot be read, has no such variable, or an element is not as expected.
    """
    if not os.path.isfile(path):
        raise MissingFile(f"no file at {path}")
    command = [sys.executable, "-P", str(MAT_TO_JSON), path, name]
    reader = subprocess.run(command, capture_output=True, text=True)
    if reader.returncode:
        reason = (reader.stderr.strip() or f"its reader crashed (status {reader.returncode})").splitlines()[-1]
        raise UserError(f"{path} cannot be read as a MATLAB file: {reason}. Fetch it again")
    elements = json.loads(reader.stdout)
    if elements is None:
        raise UserError(f"{path}: expected the variable {name!r}, which is not there. Fetch the file again")
    parsed = []
    for number, element in enumerate(elements, start=1):
        try:
            parsed.append(parse(element))
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"{path}, element {number} of {name}: expected {expected}, found {element!r}") from error
    return parsed


def read_classnames(path: str) -> dict[str, str]:
    """Read a ``classnames.txt``: lines such as ``n01440764 tench``, a class's folder and its name.

    A tab between them, if there is one, tells where the name of a folder with spaces ends.

    Returns:
        The name of each folder, in the order of the lines.
    """

    def parse(line: str) -> tuple[str, str]:
        folder, name = line.split("\t" if "\t" in line else None, maxsplit=1)
        return folder.strip(), name.strip()

    return dict(read_annotations(path, parse, "a folder's name, a space and the class name"))


def name_classes(folders: Iterable[str], path: str) -> dict[str, str]:
    """The names that a ``classnames.txt`` gives to these folders, in the folders' order.

    Raises:
        UserError: it leaves folders without a name; says how many and the first three.
    """
    names, folders = read_classnames(path), list(folders)
    unnamed = [folder for folder in folders if folder not in names]
    if unnamed:
        raise UserError(
            f"{path}: {len(unnamed):,} of {len(folders):,} class folders have no name there, first: "
            f"{', '.join(unnamed[:3])}. Add lines such as: {unnamed[0]}\tthe class name"
        )
    return {folder: names[folder] for folder in folders}
