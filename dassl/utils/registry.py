"""Registries map the names in configs to classes."""

from basics.errors import UserError
from dassl.utils.tools import get_most_similar_str_to_a_from_b


class UnknownName(UserError, ValueError):
    """The name is not registered."""


class Registry:
    """A registry, filled by a decorator (`@REGISTRY.register()`) or a call (`REGISTRY.register(obj)`).

    Args:
        name: what the registry holds, in capitals (`TRAINER`, `DATASET`), for messages.
    """

    def __init__(self, name):
        self._name = name
        self._objects: dict = {}

    def register(self, obj=None, force=False):
        """Register `obj` under its `__name__`; without `obj`, return a decorator that does so.

        Raises:
            KeyError: the name is in use and `force` is False.
        """
        if obj is None:
            return lambda decorated: self.register(decorated, force=force)
        name = obj.__name__
        if name in self._objects and not force:
            raise KeyError(
                f'An object named "{name}" was already registered in "{self._name}" registry: by '
                f"{self._objects[name].__module__}, and now by {obj.__module__}. Rename one, or remove its file."
            )
        self._objects[name] = obj
        return obj

    def get(self, name):
        """Return the object registered as `name`.

        Raises:
            UnknownName: there is none; the message lists the registered names, the most similar one first.
        """
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
