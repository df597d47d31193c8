"""Registries map the names in configs to classes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from basics.errors import UserError
from dassl.utils.tools import get_most_similar_str_to_a_from_b


class UnknownName(UserError, ValueError):
    """The name is not registered."""


class Clash(UserError):
    """Two files register the name, and neither takes precedence."""


class Registry:
    """A registry, filled by a decorator (`@REGISTRY.register()`) or a call (`REGISTRY.register(obj)`).

    Args:
        name: what the registry holds, in capitals (`TRAINER`, `DATASET`), for messages.
        is_built_in: whether a class belongs to this project. A class of the user's takes its name from one that does.
    """

    def __init__(self, name, is_built_in: Callable[[Any], bool] = lambda obj: False):
        self._name = name
        self._is_built_in = is_built_in
        self._objects: dict = {}
        self._replaced: dict[str, type] = {}  # the classes of this project whose names a user's class has
        self._clashes: dict[str, tuple[str, str]] = {}  # the files of the first two classes of the users with one name

    def register(self, obj=None, force=False):
        """Register `obj` under its `__name__`; without `obj`, return a decorator that does so.

        Raises:
            KeyError: the name is in use, by a class that `obj` does not take precedence over, and `force` is False.
        """
        if obj is None:
            return lambda decorated: self.register(decorated, force=force)
        name = obj.__name__
        known = self._objects.get(name, obj)
        built_in, known_built_in = self._is_built_in(obj), self._is_built_in(known)
        if built_in and not known_built_in:
            self._replaced[name] = obj
            return obj
        if known is not obj and not force:
            if built_in or not known_built_in:
                if known.__module__ != obj.__module__:
                    self._clashes.setdefault(name, (file_of(known), file_of(obj)))
                raise KeyError(
                    f'An object named "{name}" was already registered in "{self._name}" registry: by '
                    f"{file_of(known)}, and now by {file_of(obj)}. Rename one, or remove its file."
                )
            self._replaced[name] = known
        self._clashes.pop(name, None)
        self._objects[name] = obj
        return obj

    def replaced(self, name) -> type | None:
        """Return the class of this project whose name a user's class has taken, if there is one."""
        return self._replaced.get(name)

    def get(self, name):
        """Return the object registered as `name`.

        Raises:
            UnknownName: there is none; the message lists the registered names, the most similar one first.
            Clash: two files register it.
        """
        if name in self._clashes:
            kind, (one, other) = self._name.lower(), self._clashes[name]
            raise Clash(
                f"{kind} {name}: expected one file that registers it, got two: {one} and {other}. "
                "Rename the class in one of them, or remove that file."
            )
        if name in self._objects:
            return self._objects[name]
        kind, names = self._name.lower(), self.registered_names()
        if not names:
            raise UnknownName(
                f'unknown {kind} "{name}": no {kind} is registered. Was the file that defines it imported?'
            )
        nearest = get_most_similar_str_to_a_from_b(name, names)
        listed = ", ".join([nearest] + sorted(other for other in names if other != nearest))
        raise UnknownName(
            f'unknown {kind} "{name}". Did you mean "{nearest}"? Registered: {listed}. '
            f"Your own {kind} is registered when the file that defines it is imported."
        )

    def registered_names(self):
        """Return all names, in the order of registration."""
        return list(self._objects)


def file_of(obj) -> str:
    """Return the file that defines a class, as seen from the current folder; its module if it has none."""
    file = getattr(sys.modules.get(obj.__module__), "__file__", None)
    if file is None:
        return obj.__module__
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
