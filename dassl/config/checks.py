"""Checks of a config that collect all mistakes, so that they are reported together."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from basics import UserError, did_you_mean
from dassl.config.merge import flatten


class Checks:
    """Collect what is wrong with a config, as lines in `problems`. Keys are dotted paths.

    Args:
        cfg: the config to check.
        section: put before every key of `holds`, `one_of`, `at_least`, `above`, and `at_most`, such as "TRAINER.RPO".
    """

    def __init__(self, cfg, section: str = ""):
        self.values, self.section = flatten(cfg), section
        self.problems: list[str] = []

    def require(self, right: bool, problem: str) -> None:
        """Record `problem` unless it is `right`."""
        if not right:
            self.problems.append(problem)

    def expect(self, right: bool, key: str, expected: str, got: object) -> None:
        """Record that `key` has a wrong value unless it is `right`."""
        self.require(right, f"{key}: expected {expected}, got {got}.")

    def holds(self, key: str, right: bool, expected: str) -> None:
        """Record the value of `key` unless it is `right`."""
        key, value = self._look_up(key)
        self.expect(right, key, expected, value)

    def one_of(self, key: str, choices: Collection[str]) -> None:
        """Record a value that is not one of the choices; for a list, each such element."""
        key, value = self._look_up(key)
        for each in value if isinstance(value, list | tuple) else [value]:
            problem = f"{key}: expected one of {', '.join(choices)}, got {each!r}."
            self.require(each in choices, problem + did_you_mean(str(each), choices))

    def at_least(self, keys: str | Collection[str], least: float) -> None:
        """Record a number below `least`, of one key or of several."""
        for key in [keys] if isinstance(keys, str) else keys:
            path, value = self._look_up(key)
            self.expect(value >= least, path, f"at least {least}", value)

    def above(self, key: str, limit: float) -> None:
        """Record a number that is not above `limit`."""
        path, value = self._look_up(key)
        self.expect(value > limit, path, f"above {limit}", value)

    def at_most(self, key: str, most: float, reason: str) -> None:
        """Record a number above `most`."""
        key, value = self._look_up(key)
        self.expect(value <= most, key, f"at most {most} ({reason})", value)

    @contextmanager
    def gather(self, *kinds: type[Exception]) -> Iterator[None]:
        """Record what is raised inside as a UserError, or as one of `kinds`."""
        caught: tuple[type[Exception], ...] = (UserError, *kinds)
        try:
            yield
        except caught as error:
            self.problems += str(error).splitlines()

    def finish(self) -> None:
        """Raise one UserError with a line for each problem, if there are any."""
        if self.problems:
            raise UserError("\n".join(dict.fromkeys(self.problems)))

    def _look_up(self, key: str):
        key = f"{self.section}.{key}" if self.section else key
        return key, self.values[key]
