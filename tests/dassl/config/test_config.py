"""The configuration tree and strict merging."""

import subprocess
import sys

import pytest
import yaml

from basics import UserError
from dassl.config import clean_cfg, flatten, get_cfg_default, merge, to_dict


def write(path, text):
    path.write_text(text)
    return str(path)


def test_the_default_tree_is_a_copy():
    get_cfg_default().OPTIM.LR = 7.0
    assert get_cfg_default().OPTIM.LR == 0.0003


def test_a_dumped_configuration_merges_back(tmp_path):
    cfg = get_cfg_default()
    cfg.INPUT.SIZE = (40, 40)
    other = get_cfg_default()
    merge(other, [write(tmp_path / "all.yaml", cfg.dump())])
    assert other == cfg


def test_yacs_own_merging_methods_still_work(tmp_path):
    cfg = get_cfg_default()
    cfg.merge_from_file(write(tmp_path / "a.yaml", "OPTIM: {LR: 1e-3}"))
    cfg.merge_from_list(["SEED", "0"])
    assert (cfg.OPTIM.LR, cfg.SEED) == (0.001, 0)


def test_later_files_override_earlier_ones_and_options_override_files(tmp_path):
    cfg = get_cfg_default()
    first = write(tmp_path / "a.yaml", "OPTIM: {LR: 1e-3, MAX_EPOCH: 5}\nDATASET: {NUM_SHOTS: 1}")
    second = write(tmp_path / "b.yaml", "OPTIM: {MAX_EPOCH: 6}\nDATASET: {NUM_SHOTS: 2}")
    merge(cfg, [first, "", second], ["DATASET.NUM_SHOTS", "4"])
    assert (cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH, cfg.DATASET.NUM_SHOTS) == (0.001, 6, 4)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("OPTIM.LR", "1", 1.0),  # an integer for a float
        ("OPTIM.LR", "5e-4", 0.0005),
        ("INPUT.SIZE", "[40, 40]", (40, 40)),  # a list for a tuple
        ("INPUT.PIXEL_MEAN", "(0.5, 0.5, 0.5)", [0.5, 0.5, 0.5]),
        ("DATASET.ROOT", "", ""),
        ("OUTPUT_DIR", "2024", "2024"),  # a name that reads as a number
        ("USE_CUDA", "False", False),
    ],
)
def test_words_are_converted_to_the_type_of_the_default(key, text, value):
    cfg = get_cfg_default()
    merge(cfg, opts=[key, text])
    found = flatten(cfg)[key]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("DATASET.NUM_SHOT", "DATASET.NUM_SHOTS"),
        ("OPTM.LR", "OPTIM.LR"),
        ("NUM_SHOTS", "DATASET.NUM_SHOTS"),
        ("optim.max_epoch", "OPTIM.MAX_EPOCH"),
        ("MODEL.BACKBONE", "MODEL.BACKBONE: expected a key, got a section. Its keys: MODEL.BACKBONE.NAME"),
    ],
)
def test_an_unknown_key_names_the_nearest_by_its_full_path(unknown, nearest):
    with pytest.raises(UserError) as error:
        merge(get_cfg_default(), opts=[unknown, "1"])
    assert str(error.value).startswith(f"command line: {'' if 'section' in nearest else 'unknown key ' + unknown}")
    assert nearest in str(error.value)


def test_all_mistakes_are_reported_together_and_nothing_is_merged(tmp_path):
    cfg = get_cfg_default()
    file = write(tmp_path / "a.yaml", "OPTIM:\n  LR: fast\n  NAM: sgd\nINPUT:\n  GB_K:\nSEED: 3\n")
    with pytest.raises(UserError) as error:
        merge(cfg, [file, "/nowhere.yaml"], ["OPTIM.MAX_EPOCH", "1.5", "USE_CUDA", "1", "SEED", ""])
    assert str(error.value).splitlines() == [
        "/nowhere.yaml: expected a config file, got nothing. Check the path.",
        f"{file}: OPTIM.LR: expected a float (such as 0.0003), got a string 'fast'.",
        f"{file}: unknown key OPTIM.NAM. Did you mean OPTIM.NAME?",
        f"{file}: INPUT.GB_K: expected an integer (such as 21), got no value.",
        "command line: OPTIM.MAX_EPOCH: expected an integer (such as 10), got a float '1.5'.",
        "command line: USE_CUDA: expected True or False (such as True), got an integer '1'.",
        "command line: SEED: expected an integer (such as -1), got no value.",
    ]
    assert cfg == get_cfg_default()


def test_an_odd_number_of_words_is_refused():
    with pytest.raises(UserError, match="expected pairs KEY VALUE, got an odd number of words: OPTIM.LR=3"):
        merge(get_cfg_default(), opts=["OPTIM.LR=3"])


def test_a_flag_among_the_options_is_recognized():
    with pytest.raises(UserError, match="--sed: expected KEY VALUE pairs here, got a flag"):
        merge(get_cfg_default(), opts=["--sed", "1"])


@pytest.mark.parametrize("text", ["OPTIM: [", "a: b: c", "\tx: 1"])
def test_a_file_that_is_not_yaml_is_named(tmp_path, text):
    file = write(tmp_path / "a.yaml", text)
    with pytest.raises(UserError, match=r"a\.yaml: expected valid YAML, got .*line"):
        merge(get_cfg_default(), [file])


def test_a_file_without_keys_is_refused_and_an_empty_one_is_not(tmp_path):
    with pytest.raises(UserError, match="expected keys and values, got list"):
        merge(get_cfg_default(), [write(tmp_path / "a.yaml", "- 1")])
    merge(get_cfg_default(), [write(tmp_path / "b.yaml", "# nothing")])


def test_clean_cfg_keeps_the_name_and_the_given_method():
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = type(cfg)({"N_CTX": 16})
    cfg.TRAINER.RPO = type(cfg)({"K1": 24})
    clean_cfg(cfg, "CoOp")
    assert sorted(cfg.TRAINER) == ["COOP", "NAME"]


def test_to_dict_returns_plain_values():
    assert yaml.safe_load(yaml.safe_dump(to_dict(get_cfg_default().TEST)))["SPLIT"] == "test"


def test_importing_the_config_does_not_import_torch():
    code = "import sys, dassl.config; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
