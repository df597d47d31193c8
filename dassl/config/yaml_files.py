"""YAML files, read strictly: what YAML accepts silently is a mistake in a config."""

import os
from collections.abc import Hashable
from pathlib import Path

import yaml

from basics import UserError


class _StrictLoader(yaml.SafeLoader):
    """Refuse a repeated key (YAML keeps the last one) and aliases (a few lines can expand to millions)."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} occurs twice", key_node.start_mark)
            seen.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


def read_yaml(file):
    """Return the keys and values of a YAML file, as nested dicts.

    Raises:
        UserError: the file is missing, unreadable, not YAML, or does not hold keys and values.
    """
    if not os.path.isfile(file):  # unlike pathlib's, it accepts any text
        raise UserError(f"{file}: expected a config file, got nothing. Check the path.")
    try:
        tree = _StrictLoader(Path(file).read_text(encoding="utf-8")).get_single_data()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: expected a readable file, got an error: {error}. Restore the file.") from error
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        # The last four come from impossible dates, tags on other values, and thousands of brackets.
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: expected valid YAML, got an error: {reason}. Fix the file.") from error
    if not isinstance(tree, dict | None):
        raise UserError(f"{file}: expected keys and values, got {type(tree).__name__}. Write `KEY: VALUE`.")
    return tree or {}
