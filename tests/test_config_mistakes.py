"""Each misspelled key and each value of a wrong type in a shipped config file is refused, with a suggestion."""

from pathlib import Path

import pytest
import yaml

import datasets  # noqa: F401  (registers)
import trainers
from basics import UserError
from clip import backbone_config
from dassl.config import flatten, get_cfg_default, merge, merge_valid
from dassl.engine import TRAINER_REGISTRY, check_config

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/[td]*/**/*.yaml"))
FOLDERS = sorted({file.rpartition("/")[0] for file in FILES})
METHODS = sorted({file.split("/")[2] for file in FILES if file.startswith("configs/trainers/")})
OTHER_TYPES = {
    str: (3, 0.5, True, None, ["a"], {"a": "b"}),
    bool: (1, "yes please", None, [True]),
    int: ("many", 1.5, True, None, [1]),
    float: ("fast", True, None, [0.1]),
    list: ("x", 1, None, True, [["x"]], [None], {"a": 1}),
    tuple: ("x", 1, None, True, [["x"]], [None], {"a": 1}),
}


def whole():
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    return cfg


def leaves(tree, path=()):
    """Yield (path, value) of each key that a file sets."""
    for key, value in tree.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]


def slips(word):
    """Misspell a word: each letter left out, doubled, exchanged, and swapped with the next."""
    for i, letter in enumerate(word):
        before, after = word[:i], word[i + 1 :]
        yield from (before + after, before + 2 * letter + after, f"{before}#{after}")
        if after and after[0] != letter:
            yield before + after[0] + letter + after[1:]


def union(trees):
    """Return one tree with the keys of all."""
    found = {}
    for tree in trees:
        for key, value in tree.items():
            found[key] = union((found.get(key, {}), value)) if isinstance(value, dict) else value
    return found


def refused(tmp_path, tree):
    """List the messages about a file that holds `tree`, one line for each mistake."""
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    cfg = whole()
    with pytest.raises(UserError) as error:
        merge(cfg, [file])
    assert cfg == whole()
    return [line.removeprefix(f"{file}: ") for line in str(error.value).splitlines()]


def all_settings():
    """Return every key that a shipped file sets, with one of its values."""
    return {".".join(path): v for file in FILES for path, v in leaves(yaml.safe_load((ROOT / file).read_text()))}


@pytest.mark.slow
def test_a_key_one_letter_off_is_refused_with_the_right_one():
    cfg, settings = whole(), all_settings()
    known = flatten(cfg)
    pairs = [(slip, right) for right in settings for slip in slips(right) if slip not in known]
    assert len(pairs) > 2000
    messages = merge_valid(cfg, opts=[word for slip, right in pairs for word in (slip, settings[right])])
    for (slip, right), line in zip(pairs, messages, strict=True):
        assert line.startswith(f"command line: unknown key {slip}. Did you mean "), line
        assert right in line.partition("Did you mean ")[2], line


def test_every_value_of_another_type_is_refused():
    cfg = whole()
    pairs = [(key, value) for key in all_settings() for value in OTHER_TYPES[type(flatten(cfg)[key])]]
    assert len(pairs) > 150
    messages = merge_valid(cfg, opts=[word for pair in pairs for word in pair])
    for (key, value), line in zip(pairs, messages, strict=True):
        assert line.startswith(f"command line: {key}: expected "), (value, line)
    assert cfg == whole()


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_misspelled_key_and_wrong_value_of_a_file_is_reported(folder, tmp_path):
    def misspelled(tree):
        return {f"{key}Q": misspelled(v) if isinstance(v, dict) else v for key, v in tree.items()}

    def wrong(tree, path=""):
        return {
            key: wrong(v, f"{path}{key}.") if isinstance(v, dict) else OTHER_TYPES[type(known[f"{path}{key}"])][0]
            for key, v in tree.items()
        }

    tree = union(yaml.safe_load((ROOT / file).read_text()) for file in FILES if file.startswith(f"{folder}/"))
    known = flatten(whole())
    keys = [".".join(path) for path, _ in leaves(tree)]
    messages = refused(tmp_path, misspelled(tree))
    assert len(messages) == len(keys)
    assert all(line.startswith("unknown key ") and "Did you mean " in line for line in messages)
    messages = refused(tmp_path, wrong(tree))
    assert [line.partition(": expected ")[0] for line in messages] == keys


COMBINATIONS = {
    "MaPLe": {"PROMPT_DEPTH": (4, "expected at most 3"), "N_CTX": (74, "74 learned vectors")},
    "IVLP": {
        "PROMPT_DEPTH_TEXT": (4, "expected at most 3"),
        "PROMPT_DEPTH_VISION": (5, "expected at most 4"),
        "N_CTX_TEXT": (74, "74 learned vectors"),
    },
    "VPT": {"PROMPT_DEPTH_VISION": (5, "expected at most 4"), "DROPOUT": (1.0, "below 1"), "TUNE": ("full", "HEAD")},
    "CoOp": {"CTX_INIT": ("a " * 74, "74 learned vectors"), "CLASS_TOKEN_POSITION": ("ende", "mean 'end'")},
    "CoCoOp": {"CTX_INIT": ("a " * 74, "74 learned vectors")},
    "RPO": {"K": (74, "74 learned vectors"), "SIGMA": (-1.0, "expected at least 0"), "INIT": ("x", "one of")},
    "SEP": {"LAYERS": ([1, 9], "increasing numbers below 3"), "N_CTX": (39, "39 learned vectors")},
    "KgCoOp": {"CTX_INIT": ("a " * 74, "74 learned vectors"), "W": (-1.0, "at least 0")},
    "ProGrad": {"N_CTX": (74, "74 learned vectors"), "T": (0.0, "above 0"), "LAMBDA": (-1.0, "at least 0")},
    "CLIPAdapter": {"RATIO": (0.0, "above 0"), "REDUCTION": (129, "expected at most 128")},
    "TaskRes": {"ALPHA": (0.0, "above 0")},
    "TipAdapter": {
        "SEARCH_STEP": ([0, 3], "two numbers"),
        "AUGMENT_EPOCH": (0, "at least 1"),
        "BETA": (-1.0, "least 0"),
    },
    "TipAdapterF": {},
    "CLIPLoRA": {"R": (0, "at least 1"), "PARAMS": (["x"], "one of"), "POSITION": ("up", "below the backbone's 3")},
    "MMA": {"ADAPTER_END": (4, "expected at most 3"), "ADAPTER_SCALE": (0.0, "above 0")},
    "MMRL": {"REP_LAYERS": ([3, 4], "expected at most 3"), "ALPHA": (1.5, "between 0 and 1")},
    "TCP": {"INJECT_LAYER": (3, "expected at most 2"), "CTX_INIT": ("a " * 74, "74 learned vectors")},
    "PromptSRC": {"PROMPT_DEPTH_TEXT": (4, "expected at most 3"), "GPA_STD": (0.0, "above 0")},
    "PLOTPP": {"CTX_INIT": (["a photo", "this"], "equally many tokens"), "M": (0, "at least 1")},
    "LASP": {"LASP_PROMPTS": (["a photo"], "texts with {}"), "NOISE": (-1.0, "expected at least 0")},
    "DePT": {"W": (1.0, "between 0 and 1"), "LR_MULT": (0.0, "above 0"), "N_CTX": (74, "74 learned vectors")},
    "LP": {"PREC": ("fp61", "Did you mean 'fp16'?")},
    "LinearProbeCLIP": {},
    "ZeroshotCLIP": {},
    "ZeroshotCLIP2": {},
}
OF_ALL = {
    "INPUT.SIZE": ((224, 224), "expected (40, 40) for the backbone tiny, got (224, 224)"),
    "INPUT.TRANSFORMS": (("random_flop",), "Did you mean 'random_flip'?"),
    "INPUT.PIXEL_STD": ([1.0, 0.0, 1.0], "above 0"),
    "INPUT.GB_K": (2, "odd"),
    "DATASET.SUBSAMPLE_CLASSES": ("bsae", "Did you mean 'base'?"),
    "DATASET.PROMPT": ("a photo", "expected a text with {}"),
    "DATASET.TRAIN_FRACTION": (1.01, "expected a share above 0 and at most 1, got 1.01"),
    "DATASET.NAME": ("Digit", 'Did you mean "Digits"?'),
    "DATALOADER.TRAIN_X.BATCH_SIZE": (0, "expected at least 1"),
    "DATALOADER.K_TRANSFORMS": (2, "expected 1"),
    "OPTIM.NAME": ("sdg", "Did you mean 'sgd'?"),
    "OPTIM.LR": (float("nan"), "expected a finite number"),
    "OPTIM.LR_SCHEDULER": ("cosin", "Did you mean 'cosine'?"),
    "OPTIM.ADAM_BETA1": (1.0, "below 1"),
    "SEED": (2**32, "expected at most"),
    "MODEL.INIT_WEIGHTS": ("/nowhere.pth.tar", "expected a file"),
    "TEST.EVALUATOR": ("Clasification", 'Did you mean "Classification"?'),
}
ANY_NUMBER = ("TRAINER.PROMPTSRC.GPA_MEAN",)  # an epoch, which may lie before the first or after the last


@pytest.fixture
def no_weights(monkeypatch):
    def load(*_):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("trainers.base.load_clip", load)


@pytest.mark.parametrize("method", METHODS)
def test_impossible_settings_are_reported_before_weights_are_loaded(method, no_weights):
    cfg = whole()
    files = [ROOT / "configs/trainers" / method / "tiny.yaml", ROOT / "configs/datasets/digits.yaml"]
    merge(cfg, files, ["TRAINER.NAME", method])
    assert check_config(cfg) == []
    wrong = OF_ALL | {f"TRAINER.{method.upper()}.{key}": pair for key, pair in COMBINATIONS[method].items()}
    for key, (value, message) in wrong.items():
        one = cfg.clone()
        merge(one, opts=[key, value])
        assert [line for line in check_config(one) if message in line], (key, check_config(one))
    together = cfg.clone()
    merge(together, opts=[word for key, (value, _) in wrong.items() for word in (key, value)])
    all_at_once = "\n".join(check_config(together))
    assert all(message in all_at_once for _, message in wrong.values())


@pytest.mark.parametrize("method", METHODS)
def test_every_number_of_a_method_has_a_range(method, no_weights):
    cfg, node = whole(), f"TRAINER.{TRAINER_REGISTRY.get(method).config_node}"
    merge(cfg, [ROOT / "configs/trainers" / method / "tiny.yaml", ROOT / "configs/datasets/digits.yaml"])
    numbers = {key: value for key, value in flatten(cfg).items() if key.startswith(f"{node}.")}
    numbers = {key: type(value)(-1) for key, value in numbers.items() if type(value) in (int, float)}
    merge(cfg, opts=["TRAINER.NAME", method, *(word for pair in numbers.items() for word in pair)])
    named = "\n".join(line.partition(": expected ")[0] for line in check_config(cfg))
    assert [key for key in numbers if key not in named and key not in ANY_NUMBER] == []


@pytest.mark.parametrize("method", ["PromptSRC", "TipAdapterF"])
def test_a_method_whose_last_epoch_completes_the_model_does_not_stop_early(method):
    cfg = whole()
    early = ["TRAINER.NAME", method, "TEST.FINAL_MODEL", "best_val", "TRAIN.PATIENCE", 2]
    merge(cfg, [ROOT / "configs/trainers" / method / "tiny.yaml", ROOT / "configs/datasets/digits.yaml"], early)
    assert check_config(cfg) == [
        f"TRAIN.PATIENCE: expected 0 with {method}, whose last epoch completes the model, got 2."
    ]


def test_a_fraction_of_the_images_and_a_number_of_shots_exclude_each_other():
    cfg = whole()
    merge(cfg, [ROOT / "configs/trainers/LP/tiny.yaml"], ["TRAINER.NAME", "LP", "DATASET.TRAIN_FRACTION", 0.5])
    assert "DATASET.NUM_SHOTS: expected -1 with TRAIN_FRACTION 0.5, got 16." in check_config(cfg)


def test_sizes_are_known_without_weights_or_network(no_weights):
    assert backbone_config("ViT-L/14@336px").image_size == 336
    assert backbone_config("RN50x4").image_size == 288
    assert backbone_config("open_clip:ViT-B-16/datacomp_xl_s13b_b90k").activation == "gelu"


def test_an_unsupported_precision_is_refused(monkeypatch):
    def cannot(*_):
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'\nsecond line")

    cfg = whole()
    merge(cfg, [ROOT / "configs/trainers/RPO/tiny.yaml"], ["TRAINER.NAME", "RPO", "TRAINER.RPO.PREC", "fp16"])
    monkeypatch.setattr("torch.nn.functional.conv2d", cannot)
    expected = "TRAINER.RPO.PREC: expected a precision that this machine supports, got fp16."
    (problem,) = [line for line in check_config(cfg) if line.startswith(expected)]
    assert problem.endswith("\"slow_conv2d_cpu\" not implemented for 'Half'")
