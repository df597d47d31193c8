"""The texts of the classes: from which template or file they come, and whether they fit into the text tower."""

from __future__ import annotations

import os
from collections.abc import Iterator

from yacs.config import CfgNode

from basics import UserError, read_json
from clip import BackboneConfig, encode
from dassl.config import Checks
from dassl.data import prompt_template
from dassl.engine import TrainerX

DEFAULT_TEMPLATE = "a photo of a {}."
SHORTEST_TEXT = 4  # positions: start, a name of one token, the period, end


class TextTrainer(TrainerX):
    """A run whose classes have texts.

    Attributes:
        config_node: the method's node under TRAINER; "" if it has none.
        has_fixed_texts: whether it encodes class texts without learned vectors.
    """

    config_node = ""
    has_fixed_texts = True

    def check_texts(self, cfg: CfgNode, checks: Checks) -> None:
        """Record mistakes in DATASET.CLASS_TEXTS and DATASET.PROMPT."""
        path = cfg.DATASET.CLASS_TEXTS
        missing = f'DATASET.CLASS_TEXTS: expected a file, got "{path}". Check the path.'
        checks.require(not path or os.path.isfile(path), missing)
        checks.require(
            not path or self.has_fixed_texts,
            f"DATASET.CLASS_TEXTS: expected a method with fixed class texts, got {cfg.TRAINER.NAME}. Leave it empty.",
        )
        with checks.gather():
            prompt_template(cfg.DATASET.PROMPT or DEFAULT_TEMPLATE)

    def template(self) -> str:
        """Return the text of a class, with "{}" or "_" for its name: DATASET.PROMPT, or else the dataset's."""
        return self.cfg.DATASET.PROMPT or getattr(self.dm.dataset, "prompt", "") or DEFAULT_TEMPLATE

    def class_texts(self, classnames: list[str]) -> list[str]:
        """Insert the class names into the template."""
        template = prompt_template(self.template())
        return [template.replace("{}", name) for name in classnames]

    def fixed_texts(self, classnames: list[str]) -> list[list[str]]:
        """Return the fixed texts of each class: those of DATASET.CLASS_TEXTS, or else its one text from the template.

        Raises:
            UserError: the file has no texts for some classes.
        """
        given = self.given_texts()
        if given is None:
            return [[text] for text in self.class_texts(classnames)]
        missing = [name for name in classnames if name.replace("_", " ") not in given]
        if missing:
            named = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise UserError(f"DATASET.CLASS_TEXTS: expected texts for every class, got none for {named}. Add them.")
        return [given[name.replace("_", " ")] for name in classnames]

    def single_fixed_texts(self, classnames: list[str]) -> list[str]:
        """Return the fixed text of each class, for a method that takes only one.

        Raises:
            UserError: the file has several texts for some classes.
        """
        texts = self.fixed_texts(classnames)
        if several := [name for name, own in zip(classnames, texts, strict=True) if len(own) > 1]:
            raise UserError(
                f"DATASET.CLASS_TEXTS: expected one text per class for {self.cfg.TRAINER.NAME}, got more for "
                f"{', '.join(several[:5])}. Leave one text for each."
            )
        return [text for own in texts for text in own]

    def given_texts(self) -> dict[str, list[str]] | None:
        """Return the texts of DATASET.CLASS_TEXTS by class name, with spaces for underscores; None without a file."""
        path = self.cfg.DATASET.CLASS_TEXTS
        return read_class_texts(path) if path else None

    def names_in_texts(self, classnames: list[str]) -> list[str]:
        """Return class names as in the texts: with spaces for underscores, unless DATASET.KEEP_UNDERSCORES."""
        return classnames if self.cfg.DATASET.KEEP_UNDERSCORES else [name.replace("_", " ") for name in classnames]

    def texts(self, classnames: list[str]) -> Iterator[tuple[str, str, int]]:
        """Yield (class name, text as the text tower gets it, number of learned vectors added to it)."""
        for name, own in zip(classnames, self.fixed_texts(classnames), strict=True):
            yield from ((name, text, 0) for text in own)

    def check_room(self, checks: Checks, sizes: BackboneConfig, vectors: int, least: int = SHORTEST_TEXT) -> None:
        """Record it if `vectors` in a text leave fewer than `least` positions for the words."""
        length = sizes.context_length
        checks.require(
            length - vectors >= least,
            f"TRAINER.{self.config_node}: expected at least {least} of the backbone's {length} positions left for the "
            f"words, got {max(length - vectors, 0)} with {vectors} learned vectors. Use fewer.",
        )

    def check_context(self, classnames: list[str], length: int) -> None:
        """Refuse class names whose texts exceed the backbone's context of `length` positions.

        Raises:
            UserError: with one line per such class.
        """
        checks = Checks(self.cfg)
        for name, text, joined in self.texts(classnames):
            used = 2 + len(encode(text)) + joined  # the start and end tokens
            fewer = f", or use at most {max(length - used + joined, 0)} learned vectors" if joined else ""
            checks.require(
                used <= length,
                f"class {name[:80]!r}: expected at most {length} positions for its text and {joined} learned "
                f"vectors, got {used}. Shorten the name{fewer}.",
            )
        checks.finish()


def read_class_texts(path: str) -> dict[str, list[str]]:
    """Read a JSON file {class name: [text, ...]}; underscores in the names become spaces.

    Raises:
        UserError: it has another form.
    """
    found = read_json(path)
    well_formed = isinstance(found, dict) and all(
        isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts) for texts in found.values()
    )
    if not well_formed:
        raise UserError(f"{path}: expected {{class name: [text, ...]}} in JSON, got something else. Fix the file.")
    return {name.replace("_", " "): texts for name, texts in found.items()}
