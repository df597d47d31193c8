"""Strict merging: every mistake in files and options is found, and all are told at once."""

import difflib
import os
import warnings

from yacs.config import CfgNode

from basics import UserError
from dassl.config.yaml_files import read_yaml

LONGEST_KEY = 100  # letters of a key that is not known, as far as it is looked at


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
    settings, problems = _read(cfg, files, opts)
    if problems:
        raise UserError("\n".join(problems))
    _put(cfg, settings)


def merge_what_is_right(cfg, files=(), opts=()):
    """As `merge`, but what is right is merged, and what is wrong is returned: a list of lines.

    For a caller that looks for further mistakes in the result, to tell all of them at once.
    """
    settings, problems = _read(cfg, files, opts)
    _put(cfg, settings)
    return problems


def _read(cfg, files, opts):
    """Settings as (key, converted value), in order, and what is wrong, as lines."""
    problems, given = [], []
    for file in files:
        if file:
            try:
                given += [(str(file), key, value) for key, value in flatten(read_yaml(file)).items()]
            except UserError as error:
                problems.append(str(error))
    if len(opts) % 2:
        problems.append(
            f"command line: expected pairs KEY VALUE, found an odd number of words: {' '.join(map(str, opts))}"
        )
    else:
        given += [("command line", key, value) for key, value in zip(opts[::2], opts[1::2], strict=True)]

    known, settings = flatten(cfg), []
    for source, key, value in given:
        try:
            settings.append((key, _convert(key, value, known)))
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
    """A value of a YAML file or an option as yacs reads it: strings are Python literals where they can be."""
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):  # of Python, about the user's text
            return CfgNode._decode_cfg_value(value)
    except (TypeError, MemoryError, RecursionError):  # not of yacs's list: {[]: 1}, and brackets in thousands
        return value


def _convert(key, value, known):
    if key not in known:
        raise UserError(_unknown(key, known))
    expected = known[key]
    if value is None or (value == "" and not isinstance(expected, str)):
        if expected is None:
            return value
        raise UserError(f"{key} has no value (expected {_kind(expected)}, such as {expected!r})")
    decoded = _of_type(expected, value)
    if decoded is None and expected is not None:
        found = decode(value)
        raise UserError(f"{key}: expected {_kind(expected)} (such as {expected!r}), found {_kind(found)} {value!r}")
    for text in decoded if isinstance(decoded, list | tuple) else [decoded]:
        if isinstance(text, str) and not is_text(text):
            raise UserError(f"{key}: expected text, found {text!r}, which is not valid Unicode or holds a zero byte")
    return decoded


def _of_type(expected, value):
    """The value as the type of `expected`; None if it is of another."""
    decoded = decode(value)
    if isinstance(expected, list | tuple) and isinstance(decoded, list | tuple):
        # What an empty list takes is not known; its elements are names or numbers.
        elements = [_of_type(expected[0], each) if expected else _plain(each) for each in decoded]
        return None if None in elements else type(expected)(elements)
    if isinstance(expected, str) and isinstance(value, str):
        return decoded if isinstance(decoded, str) else value  # a name that happens to read as a number
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
    """Whether a string can be written and can name a file: no halves of characters, no zero bytes."""
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


def _unknown(key, known):
    key = key if len(str(key)) <= LONGEST_KEY else f"{str(key)[:LONGEST_KEY]}..."
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
    """The key that was meant; all of those that are one letter away, if there are any."""
    if slips := [path for path in known if _one_slip(key, path)]:
        return " or ".join(slips)

    # The whole path counts, and its last word once more: it is what people remember.
    def likeness(path):
        def ratio(a, b):
            return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()

        return ratio(key, path) + ratio(key.rpartition(".")[2], path.rpartition(".")[2])

    return max(known, key=likeness)


def _one_slip(a, b):
    """Whether a letter left out, put in, exchanged or swapped with the next makes `a` of `b`."""
    start = len(os.path.commonprefix([a, b]))
    a, b = a[start:], b[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[:2][::-1] and a[2:] == b[2:])
