"""Find the name that a user meant, or probably meant."""

import difflib

LONGEST_NAME = 100  # characters of an unknown name that are compared: the comparison takes quadratic time


def similarity(a, b):
    """Return how similar two names are, from 0 to 1. Upper and lower case count as equal."""
    return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()


def known_spelling(name, known):
    """Return a name as `known` (a collection of str) spells it, ignoring case; unchanged if no or several names fit."""
    alike = [each for each in known if each.lower() == name.lower()]
    return alike[0] if name not in known and len(alike) == 1 else name


def did_you_mean(name, known, count=1):
    """Return " Did you mean 'ViT-B/16'?", to end a message about an unknown name, or "" if no name is similar.

    Args:
        name (str): what the user wrote.
        known (iterable of str): the names that exist. Upper and lower case count as equal.
        count (int): the most names to suggest.
    """
    by_lowercase = {each.lower(): each for each in known}
    similar = difflib.get_close_matches(name[:LONGEST_NAME].lower(), by_lowercase, n=count)
    return f" Did you mean {' or '.join(repr(by_lowercase[each]) for each in similar)}?" if similar else ""
