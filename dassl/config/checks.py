"""Questions to a configuration, whose answers are gathered so that all that is wrong is told at once."""

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from basics import UserError
from dassl.config.merge import flatten


class Checks:
    """What is wrong with a configuration, as lines in `problems`; keys are dotted paths.

    Args:
        cfg: the configuration that is asked.
        section: put before every key, "TRAINER.RPO".
    """

    def __init__(self, cfg, section: str = ""):
        self.values, self.section = flatten(cfg), section
        self.problems: list[str] = []

    def require(self, right: bool, problem: str) -> None:
        """Note `problem` unless it is `right`."""
        if not right:
            self.problems.append(problem)

    def one_of(self, key: str, choices: Collection[str]) -> None:
        """The value is one of the choices; a list's every element is."""
        key, value = self._look_up(key)
        for each in value if isinstance(value, list | tuple) else [value]:
            near = difflib.get_close_matches(str(each), choices, n=1)
            hint = f" (do you mean {near[0]!r}?)" if near else ""
            self.require(each in choices, f"{key}: expected one of {', '.join(choices)}, found {each!r}{hint}")

    def at_least(self, key: str, least: float) -> None:
        """The number is not below `least`."""
        key, value = self._look_up(key)
        self.require(value >= least, f"{key}: expected at least {least}, found {value}")

    def at_most(self, key: str, most: float, reason: str) -> None:
        """The number is not above `most`."""
        key, value = self._look_up(key)
        self.require(value <= most, f"{key}: expected at most {most}, found {value}: {reason}")

    @contextmanager
    def gather(self, *kinds: type[Exception]) -> Iterator[None]:
        """What is raised inside, of these kinds or as a UserError, becomes a problem."""
        try:
            yield
        except (UserError, *kinds) as error:
            self.problems += str(error).splitlines()

    def finish(self) -> None:
        """Raise one UserError with a line for each problem, if there is any."""
        if self.problems:
            raise UserError("\n".join(dict.fromkeys(self.problems)))

    def _look_up(self, key: str):
        key = f"{self.section}.{key}" if self.section else key
        return key, self.values[key]
