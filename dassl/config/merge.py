"""Strict merging: every mistake in files and options is found, and all are told at once."""

import difflib
from pathlib import Path

import yaml
from yacs.config import CfgNode

from dassl.utils import UserError


def flatten(cfg, prefix=""):
    """The leaves of a configuration, or of a nested dict, as one dict `{"OPTIM.LR": 0.002, ...}`."""
    leaves = {}
    for key, value in cfg.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            leaves.update(flatten(value, f"{path}."))
        else:
            leaves[path] = value
    return leaves


def to_dict(cfg):
    """The configuration as nested plain dicts."""
    return {key: to_dict(value) if isinstance(value, dict) else value for key, value in cfg.items()}


def merge(cfg, files=(), opts=()):
    """Merge YAML files, then options, into `cfg`; later ones win. `cfg` is left as it was if anything is wrong.

    Values are converted as yacs does (strings are read as Python literals, lists and tuples become each other); an
    integer is accepted where a float is expected.

    Args:
        cfg (CfgNode): the tree with all keys and defaults.
        files: paths of YAML files; empty ones ("" or None) are skipped.
        opts: KEY VALUE KEY VALUE ..., keys as dotted paths.

    Raises:
        UserError: missing or invalid files, unknown keys, wrong types; one line for each.
    """
    errors, settings = [], []
    for file in files:
        if file:
            try:
                settings += [(str(file), key, value) for key, value in flatten(read_yaml(file)).items()]
            except UserError as error:
                errors.append(str(error))
    if len(opts) % 2:
        errors.append(
            f"command line: expected pairs KEY VALUE, found an odd number of words: {' '.join(map(str, opts))}"
        )
    else:
        settings += [("command line", key, value) for key, value in zip(opts[::2], opts[1::2], strict=True)]

    known, converted = flatten(cfg), []
    for source, key, value in settings:
        try:
            converted.append((key, _convert(key, value, known, cfg)))
        except UserError as error:
            errors.append(f"{source}: {error}")
    if errors:
        raise UserError("\n".join(errors))
    for key, value in converted:
        *sections, name = key.split(".")
        node = cfg
        for section in sections:
            node = node[section]
        setattr(node, name, value)


def decode(value):
    """A value of a YAML file or an option as yacs reads it: strings are Python literals where they can be."""
    return CfgNode._decode_cfg_value(value)


def read_yaml(file):
    """The keys and values of a YAML file, as nested dicts. Raises UserError: no such file, or of another kind."""
    if not Path(file).is_file():
        raise UserError(f'no configuration file at "{file}"')
    try:
        tree = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{file}: expected keys and values, found {type(tree).__name__}")
    return tree


def _convert(key, value, known, cfg):
    if key not in known:
        raise UserError(_unknown(key, known))
    expected = known[key]
    if value is None or (value == "" and not isinstance(expected, str)):
        if expected is None:
            return value
        raise UserError(f"{key} has no value (expected {_kind(expected)}, such as {expected!r})")
    decoded = decode(value)
    if expected is None or type(decoded) is type(expected):
        return decoded
    if isinstance(expected, str) and isinstance(value, str):
        return value  # a name that happens to read as a number
    if isinstance(expected, float) and type(decoded) is int:
        return float(decoded)
    if isinstance(expected, list | tuple) and isinstance(decoded, list | tuple):
        return type(expected)(decoded)
    raise UserError(f"{key}: expected {_kind(expected)} (such as {expected!r}), found {_kind(decoded)} {value!r}")


def _kind(value):
    names = {
        str: "a string",
        int: "an integer",
        float: "a float",
        bool: "True or False",
        list: "a list",
        tuple: "a list",
    }
    return names.get(type(value), type(value).__name__)


def _unknown(key, known):
    if str(key).startswith("-"):
        return f"{key} looks like a flag among the KEY VALUE pairs: flags are spelt as in --help and come first"
    inside = [path for path in known if path.startswith(f"{key}.")]
    if inside:
        return f"{key} is a section, not a key; its keys: {', '.join(inside)}"
    unknown = f"unknown key {key} (nearest: {_nearest(str(key), known)})"
    node = ".".join(str(key).split(".")[:2])
    if str(key).startswith("TRAINER.") and not any(path.startswith(f"{node}.") for path in known):
        unknown += f"; the method's file, or one beside it, declares {node} in a function extend_cfg(cfg)"
    return unknown


def _nearest(key, known):
    # The whole path counts, and its last word once more: it is what people remember.
    def likeness(path):
        def ratio(a, b):
            return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()

        return ratio(key, path) + ratio(key.rpartition(".")[2], path.rpartition(".")[2])

    return max(known, key=likeness)
