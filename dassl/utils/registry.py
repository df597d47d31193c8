"""A registry maps names, as written in configurations, to classes."""

from basics.errors import UserError
from dassl.utils.tools import get_most_similar_str_to_a_from_b


class UnknownName(UserError, ValueError):
    """The name asked for was never registered."""


class Registry:
    """Name -> object. Used as a decorator (`@REGISTRY.register()`) or called (`REGISTRY.register(obj)`).

    Args:
        name: what the registry holds, in capitals (`TRAINER`, `DATASET`); used in messages.
    """

    def __init__(self, name):
        self._name = name
        self._objects = {}

    def register(self, obj=None, force=False):
        """Register `obj` under its `__name__`; without `obj`, return a decorator that does so.

        Raises:
            KeyError: the name is taken and `force` is False.
        """
        if obj is None:
            return lambda decorated: self.register(decorated, force=force)
        name = obj.__name__
        if name in self._objects and not force:
            raise KeyError(
                f'An object named "{name}" was already registered in "{self._name}" registry: by '
                f"{self._objects[name].__module__}, and now by {obj.__module__}; rename one, or take its file away"
            )
        self._objects[name] = obj
        return obj

    def get(self, name):
        """The object registered as `name`.

        Raises:
            UnknownName: nothing of that name; the message lists what there is, the nearest first.
        """
        if name in self._objects:
            return self._objects[name]
        kind, names = self._name.lower(), self.registered_names()
        if not names:
            raise UnknownName(
                f'unknown {kind} "{name}": no {kind} is registered (was the file that defines it imported?)'
            )
        nearest = get_most_similar_str_to_a_from_b(name, names)
        listed = ", ".join([nearest] + sorted(other for other in names if other != nearest))
        raise UnknownName(
            f'unknown {kind} "{name}" (do you mean "{nearest}"?). Registered: {listed}. '
            f"A {kind} of your own is registered when the file that defines it is imported."
        )

    def registered_names(self):
        """All names, in the order of their registration."""
        return list(self._objects)
