"""YAML files, read strictly: what YAML lets pass in silence is a mistake in a configuration."""

import os
from collections.abc import Hashable
from pathlib import Path

import yaml

from basics import UserError


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice (YAML keeps the last), and aliases (a few lines can stand for millions)."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not read", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands here twice", key_node.start_mark)
            seen.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


def read_yaml(file):
    """The keys and values of a YAML file, as nested dicts.

    Raises:
        UserError: missing, not readable, not YAML, or not keys and values.
    """
    if not os.path.isfile(file):  # unlike pathlib's it has an answer to any text
        raise UserError(f'no configuration file at "{file}"')
    try:
        tree = _StrictLoader(Path(file).read_text(encoding="utf-8")).get_single_data()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        # The last four come from dates that are none, tags on other values, and brackets in thousands.
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict | None):
        raise UserError(f"{file}: expected keys and values, found {type(tree).__name__}")
    return tree or {}
