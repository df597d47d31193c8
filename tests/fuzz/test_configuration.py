"""Configuration files, KEY VALUE pairs and command lines of any kind end in a configuration or in one clear message."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import JUNK, TEXTS, damaged, grafted

import train
import trainers
from basics import UserError
from dassl.config import flatten, get_cfg_default, merge_valid
from dassl.engine import check_config
from promptlearn.cli import main

ROOT = Path(__file__).parents[2]
FILE = "configs/trainers/{}/tiny.yaml"
METHODS = sorted(path.name for path in ROOT.glob("configs/trainers/*"))
WHOLE = get_cfg_default()
trainers.extend_cfg(WHOLE)
KEYS = sorted(flatten(WHOLE))
FLAGS = [word for action in train.parser()._actions for word in action.option_strings if word not in ("-h", "--help")]


def settle(files, opts, method):
    """Merge and check, as the entry point does; what is refused is reported, and the rest has the right type."""
    cfg = WHOLE.clone()
    merge_valid(cfg, [ROOT / FILE.format(method), ROOT / "configs/datasets/digits.yaml"])
    problems = merge_valid(cfg, files, opts)
    merge_valid(cfg, opts=["TRAINER.NAME", method])
    problems += check_config(cfg)
    assert all(isinstance(line, str) and line.strip() for line in problems)
    for key, value in flatten(cfg).items():
        assert type(value) is type(flatten(WHOLE)[key]), key
    return problems


@given(method=st.sampled_from(METHODS), data=st.data())
def test_a_damaged_file_merges_or_gives_one_message(tmp_path_factory, method, data):
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_bytes(data.draw(damaged((ROOT / FILE.format(method)).read_bytes())))
    settle([file], [], method)


@given(method=st.sampled_from(METHODS), data=st.data())
def test_other_values_merge_or_give_one_message(tmp_path_factory, method, data):
    file = tmp_path_factory.getbasetemp() / "other.yaml"
    tree = data.draw(grafted(yaml.safe_load((ROOT / FILE.format(method)).read_text())))
    file.write_text(yaml.safe_dump(tree), errors="surrogatepass")
    settle([file], [], method)


@given(text=TEXTS)
def test_any_text_merges_or_gives_one_message(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    settle([file], [], "RPO")


@given(
    pairs=st.lists(st.tuples(st.sampled_from(KEYS) | TEXTS, TEXTS | JUNK), max_size=6), method=st.sampled_from(METHODS)
)
def test_any_keys_and_values_merge_or_give_one_message(pairs, method):
    settle([], [word for pair in pairs for word in pair], method)


@given(words=st.lists(st.sampled_from([*FLAGS, *KEYS, *METHODS, "RPO", "0", "16", "[1]"]) | TEXTS, max_size=8))
def test_any_command_line_parses_or_gives_one_message(words):
    try:
        cfg = train.setup_cfg(train.parser().parse_args(["--trainer", "RPO", *words]))
    except (UserError, SystemExit) as error:
        assert not isinstance(error, SystemExit) or error.code in (0, 2)
    else:
        assert cfg.SEED >= 0 and cfg.TRAINER.NAME in METHODS


@given(
    words=st.lists(
        st.sampled_from(["--trainers", "--datasets", "--seeds", "--shots", "--config", "RPO", "digits", "1"]) | TEXTS,
        max_size=6,
    )
)
def test_any_dassl_command_works_or_gives_one_message(words, tmp_path_factory):
    output = tmp_path_factory.getbasetemp() / "none"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        try:
            status = main(["base2new", "--dry-run", "--output", os.fspath(output), *words])
        except SystemExit as error:
            status = error.code
    assert status in (0, 2)


@given(words=st.lists(st.sampled_from(["results", "-h", "--version"]) | TEXTS, min_size=1, max_size=3))
def test_any_dassl_verb_works_or_gives_one_message(words):
    try:
        status = main(words)
    except SystemExit as error:
        status = error.code
    assert status in (0, 2)
