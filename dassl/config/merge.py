"""Strict merging: every mistake in files and options is found, and all are reported together."""

import os
import warnings
from collections.abc import Callable

from yacs.config import CfgNode

from basics import UserError, similarity
from dassl.config.yaml_files import read_yaml

LONGEST_KEY = 100  # characters of an unknown key that are compared, and of its value that are repeated


def flatten(cfg, prefix=""):
    """Return the leaves of a config, or of a nested dict, as one dict `{"OPTIM.LR": 0.002, ...}`."""
    leaves = {}
    for key, value in cfg.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            leaves.update(flatten(value, f"{path}."))
        else:
            leaves[path] = value
    return leaves


def to_dict(cfg):
    """Return the config as nested plain dicts."""
    return {key: to_dict(value) if isinstance(value, dict) else value for key, value in cfg.items()}


def merge(cfg, files=(), opts=()):
    """Merge YAML files, then options, into `cfg`; later ones win. If anything is wrong, `cfg` stays unchanged.

    Values are converted as in yacs: strings are read as Python literals, and lists and tuples become each other. Beyond
    yacs, an integer is accepted where a float is expected.

    Args:
        cfg (CfgNode): the tree with all keys and defaults.
        files: paths of YAML files; empty ones ("" or None) are skipped.
        opts: KEY VALUE KEY VALUE ..., keys as dotted paths.

    Raises:
        UserError: missing or invalid files, unknown keys, wrong types; one line per mistake.
    """
    settings, problems = _read(cfg, files, opts)
    if problems:
        raise UserError("\n".join(problems))
    _put(cfg, settings)


def merge_valid(cfg, files=(), opts=(), translate: Callable | None = None):
    """Merge what is valid, as `merge` does, and return the mistakes as lines.

    For a caller that looks for further mistakes in the result, so as to report all of them together.

    Args:
        translate: (key, value) as given -> the (key, value) pairs to merge. It may raise UserError.
    """
    settings, problems = _read(cfg, files, opts, translate)
    _put(cfg, settings)
    return problems


def _read(cfg, files, opts, translate=None):
    """Return settings as (key, converted value), in order, and the mistakes as lines."""
    problems: list[str] = []
    given: list[tuple[str, str, object]] = []
    for file in files:
        if file:
            try:
                given += [(str(file), key, value) for key, value in flatten(read_yaml(file)).items()]
            except UserError as error:
                problems.append(str(error))
    if len(opts) % 2:
        problems.append(
            f"command line: expected pairs KEY VALUE, got an odd number of words: {' '.join(map(str, opts))}."
        )
    else:
        given += [("command line", key, value) for key, value in zip(opts[::2], opts[1::2], strict=True)]

    known, settings = flatten(cfg), []
    for source, key, value in given:
        try:
            for name, meant in translate(key, value) if translate else [(key, value)]:
                settings.append((name, _convert(name, meant, known)))
        except UserError as error:
            problems.append(f"{source}: {error}")
    return settings, problems


def _put(cfg, settings):
    for key, value in settings:
        *sections, name = key.split(".")
        node = cfg
        for section in sections:
            node = node[section]
        setattr(node, name, value)


def decode(value):
    """Return a value of a YAML file or an option as yacs reads it: strings are Python literals if possible."""
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):  # Python's, about the user's text
            return CfgNode._decode_cfg_value(value)
    except (TypeError, MemoryError, RecursionError):  # which yacs does not catch: {[]: 1}, and thousands of brackets
        return value


def _convert(key, value, known):
    if key not in known:
        raise UserError(_unknown(key, value, known))
    expected = known[key]
    if value is None or (value == "" and not isinstance(expected, str)):
        if expected is None:
            return value
        raise UserError(f"{key}: expected {_kind(expected)} (such as {expected!r}), got no value.")
    decoded = _of_type(expected, value)
    if decoded is None and expected is not None:
        kind = _kind(decode(value))
        raise UserError(f"{key}: expected {_kind(expected)} (such as {expected!r}), got {kind} {value!r}.")
    for text in decoded if isinstance(decoded, list | tuple) else [decoded]:
        if isinstance(text, str) and not is_text(text):
            raise UserError(f"{key}: expected text, got {text!r}, which is not valid Unicode or contains a zero byte.")
    return decoded


def _of_type(expected, value):
    """Return the value as the type of `expected`; None if it has another type."""
    decoded = decode(value)
    if isinstance(expected, list | tuple) and isinstance(decoded, list | tuple):
        # The element type of an empty list is unknown: names or numbers.
        elements = [_of_type(expected[0], each) if expected else _plain(each) for each in decoded]
        return None if None in elements else type(expected)(elements)
    if isinstance(expected, str) and isinstance(value, str):
        return decoded if isinstance(decoded, str) else value  # a name that looks like a number
    if isinstance(expected, float) and type(decoded) is int:
        return _finite(decoded)
    return decoded if expected is None or type(decoded) is type(expected) else None


def _plain(value):
    return value if isinstance(value, str | int | float) else None


def _finite(number):
    try:
        return float(number)
    except OverflowError:
        return None


def is_text(text):
    """Return whether a string can be written and can name a file: no halves of characters, no zero bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


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


def _unknown(key, value, known):
    key = str(key) if len(str(key)) <= LONGEST_KEY else f"{str(key)[:LONGEST_KEY]}..."
    if key.startswith("-"):
        return f"{key}: expected KEY VALUE pairs here, got a flag. Put flags first, spelled as in --help."
    inside = [path for path in known if path.startswith(f"{key}.")]
    if inside:
        return f"{key}: expected a key, got a section. Its keys: {', '.join(inside)}."
    unknown = f"unknown key {key}. Did you mean {_nearest(key, known)}?"
    if any(_one_slip(key, path) for path in known) or not all(map(str.isidentifier, key.split("."))):
        return unknown
    return (
        f"{unknown} If not, and the method reads it, declare it in a function extend_cfg(cfg) of the method's file, or "
        f"of one next to it: {_declaration(key, value, known)}"
    )


def _declaration(key, value, known):
    """Return the statements that declare a key, with its value as the default."""
    *sections, _ = key.split(".")
    nodes = [".".join(sections[: depth + 1]) for depth in range(len(sections))]
    new = [node for node in nodes if not any(path.startswith(f"{node}.") for path in known)]
    default = repr(decode(value))
    default = default if len(default) <= LONGEST_KEY else "..."
    return "; ".join([*(f"cfg.{node} = CfgNode()" for node in new), f"cfg.{key} = {default}"])


def _nearest(key, known):
    """Return the most similar key; if there are keys one letter away, all of them."""
    if slips := [path for path in known if _one_slip(key, path)]:
        return " or ".join(slips)

    # The whole path counts, and its last word twice, because that is what people remember.
    def likeness(path):
        return similarity(key, path) + similarity(key.rpartition(".")[2], path.rpartition(".")[2])

    return max(known, key=likeness)


def _one_slip(a, b):
    """Return whether one missing, extra, wrong or swapped letter turns `b` into `a`."""
    start = len(os.path.commonprefix([a, b]))
    a, b = a[start:], b[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[:2][::-1] and a[2:] == b[2:])
