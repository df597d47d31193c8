"""Annotation files of datasets: lines of text, MATLAB files, and the names of class folders."""

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
    """Read a text file with one annotation per line; empty lines are skipped.

    Args:
        path: the file, UTF-8.
        parse: parses a line (without spaces at its ends); raises ValueError or LookupError if it cannot.
        expected: the content of a line, for the message.

    Returns:
        The parsed lines, in order.

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
                    raise UserError(
                        f"{path}, line {number}: expected {expected}, got {line!r}. Restore the file."
                    ) from error
    except FileNotFoundError as error:
        raise MissingFile(f"{path}: expected a file, got nothing. Check that the dataset is complete.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: expected a text file in UTF-8, got an unreadable one ({error}). Restore the file."
        ) from error
    return parsed


def read_mat(path: str, name: str, parse: Callable[[Any], T], expected: str) -> list[T]:
    """Read one variable of a MATLAB file (before version 7.3).

    Args:
        path: the file.
        name: the variable, a vector.
        parse: parses an element: a number, a string (of a cell array), or a dict by field (of a struct array); raises
            ValueError, TypeError or LookupError if it cannot.
        expected: the content of an element, for the message.

    Returns:
        The parsed elements, in order.

    Raises:
        MissingFile: no such file.
        UserError: the file cannot be read, has no such variable, or an element is not as expected.
    """
    if not os.path.isfile(path):
        raise MissingFile(f"{path}: expected a file, got nothing. Check that the dataset is complete.")
    command = [sys.executable, "-P", str(MAT_TO_JSON), path, name]
    reader = subprocess.run(command, capture_output=True, text=True)
    if reader.returncode:
        reason = (reader.stderr.strip() or f"its reader crashed with status {reader.returncode}").splitlines()[-1]
        raise UserError(f"{path}: expected a MATLAB file, got an unreadable one ({reason}). Download it again.")
    elements = json.loads(reader.stdout)
    if elements is None:
        raise UserError(f"{path}: expected the variable {name!r}, got none of that name. Download the file again.")
    parsed = []
    for number, element in enumerate(elements, start=1):
        try:
            parsed.append(parse(element))
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(
                f"{path}, element {number} of {name}: expected {expected}, got {element!r}. Download the file again."
            ) from error
    return parsed


def read_classnames(path: str) -> dict[str, str]:
    """Read a ``classnames.txt``: lines such as ``n01440764 tench``, the folder and the name of a class.

    A folder name with spaces needs a tab between the two.

    Returns:
        The name of each folder, in the order of the lines.
    """

    def parse(line: str) -> tuple[str, str]:
        folder, name = line.split("\t" if "\t" in line else None, maxsplit=1)
        return folder.strip(), name.strip()

    return dict(read_annotations(path, parse, "a folder's name, a space and the class name"))


def name_classes(folders: Iterable[str], path: str) -> dict[str, str]:
    """Return the names of these folders in a ``classnames.txt``, in the order of the folders.

    Raises:
        UserError: folders have no name there; reports how many and the first three.
    """
    names, folders = read_classnames(path), list(folders)
    unnamed = [folder for folder in folders if folder not in names]
    if unnamed:
        raise UserError(
            f"{path}: expected names for {len(folders):,} class folders, got none for {len(unnamed):,}, first: "
            f"{', '.join(unnamed[:3])}. Add lines such as: {unnamed[0]}\tthe class name"
        )
    return {folder: names[folder] for folder in folders}
