"""Input for fuzzing: damaged bytes, unexpected texts, trees of settings, and the number of cases."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# FUZZ_CASES sets the number of cases of each test. They are the same ones every time, unless FUZZ_RANDOM is set.
CASES = int(os.environ.get("FUZZ_CASES", "25"))
settings.register_profile(
    "fuzz",
    max_examples=CASES,
    derandomize="FUZZ_RANDOM" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")

# Lone surrogates, control characters, emoji with joiners, right-to-left text, and much of it.
ANY_CHARACTER = st.characters(exclude_categories=())
ODD_TEXTS = st.sampled_from(
    [
        *("", " ", "\0", "\ud800", "\udcff", "\ufeff", "\u202e", "\x85", "\u2028", "e\u0301", "ﬁ", "İ"),
        *("👩‍👩‍👧‍👦", "🏳️‍🌈 " * 30, "न्यूज़", "日本語", "a" * 10_000, "word " * 3000, "\n", "a\nb", "<|endoftext|>"),
        *(
            "&amp;amp;",
            "{}",
            "{0}",
            "{x}",
            "%s",
            "_",
            "__",
            ".",
            "..",
            "/",
            "../../x",
            "~",
            "~nobody",
            "$HOME",
            "-",
            "--",
        ),
        *(
            "[" * 300,
            "(" * 3000,
            "{[]: 1}",
            "{{}}",
            "1" * 5000,
            "1e999",
            "nan",
            "0x",
            "'",
            '"',
            "'\\d'",
            "1_0",
            "1if 1",
        ),
        *(
            "2024-99-99",
            "!!int x",
            "!!timestamp x",
            "!!python/object:os.system",
            "&a [*a]",
            "? [a]",
            "<<: 1",
            "0o9",
            "=",
            "~",
        ),
    ]
)
TEXTS = st.one_of(ODD_TEXTS, st.text(ANY_CHARACTER, max_size=60), st.text("[](){}'\",:-_.01aeN \n\\&*!", max_size=40))
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 1, 2**31, 2**32, 2**63, 2**64, 10**400]))
JUNK = st.recursive(
    st.one_of(TEXTS, NUMBERS, st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def damaged(draw, data: bytes, within: int | None = None) -> bytes:
    """Change one to four places of the bytes: overwrite, cut off, double, or remove.

    Args:
        within: only the first so many bytes are touched.
    """
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, min(len(data), within or len(data))))
        length = draw(st.integers(0, 16))
        match draw(st.sampled_from(["overwrite", "overwrite", "flip", "cut", "double", "remove"])):
            case "overwrite":
                data = data[:start] + draw(st.binary(min_size=length, max_size=length)) + data[start + length :]
            case "flip":
                data = (
                    data[:start]
                    + bytes(b ^ 1 << draw(st.integers(0, 7)) for b in data[start : start + 1])
                    + data[start + 1 :]
                )
            case "cut":
                data = data[:start]
            case "double":
                data = data[:start] + data[start : start + length] * 2 + data[start + length :]
            case "remove":
                data = data[:start] + data[start + length :]
    return data


@st.composite
def grafted(draw, tree):
    """Copy a tree of dicts and lists; one to three places hold junk, are missing, or are doubled."""

    def places(node):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            if isinstance(node[key], dict | list):
                yield from places(node[key])

    def copied(node):
        if isinstance(node, dict):
            return {key: copied(value) for key, value in node.items()}
        return [copied(value) for value in node] if isinstance(node, list) else node

    tree = copied(tree)
    for _ in range(draw(st.integers(1, 3))):
        known = list(places(tree))
        if not known:
            return draw(JUNK)
        node, key = draw(st.sampled_from(known))
        match draw(st.sampled_from(["junk", "junk", "remove", "double"])):
            case "junk":
                node[key] = draw(JUNK)
            case "remove":
                del node[key]
            case "double" if isinstance(node, list):
                node.append(node[key])
            case "double":
                node[draw(TEXTS)] = node[key]
    return tree
