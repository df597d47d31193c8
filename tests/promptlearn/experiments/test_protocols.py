from pathlib import Path

import pytest

from basics import UserError
from dassl.config import get_cfg_default, merge
from promptlearn.experiments import PROTOCOLS, Checkout, RunRequest, explain_configs, plan
from promptlearn.experiments.planning import label_of, variants
from tests.fake_checkout import FakeCheckout

METHODS = 8  # without zero-shot CLIP


@pytest.fixture
def checkout(tmp_path):
    return Checkout(FakeCheckout(tmp_path).root)


def commands(checkout, protocol="base2new", data=None, **request):
    jobs = plan(PROTOCOLS[protocol], checkout, checkout.root / "output", data, RunRequest(**request))
    return [" ".join(job.arguments(checkout, data)) for job in jobs]


def values(lines, key):
    """Return the words after `key`, each once, in the order in which they first appear."""
    return list(dict.fromkeys(line.split(f"{key} ")[1].split()[0] for line in lines))


def test_a_seed_is_trained_on_base_and_its_model_is_tested_on_new(checkout):
    train, test = commands(checkout, trainers=["RPO"], seeds=[2])[2:]
    assert train == (
        "--seed 2 --trainer RPO --dataset-config-file configs/datasets/digits.yaml "
        "--config-file configs/trainers/RPO/tiny.yaml "
        "--output-dir output/base2new/train_base/digits/shots_16/RPO/tiny/seed2 "
        "DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base"
    )
    assert test == (
        "--seed 2 --trainer RPO --dataset-config-file configs/datasets/digits.yaml "
        "--config-file configs/trainers/RPO/tiny.yaml "
        "--output-dir output/base2new/test_new/digits/shots_16/RPO/tiny/seed2 "
        "--model-dir output/base2new/train_base/digits/shots_16/RPO/tiny/seed2 --eval-only "
        "DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES new"
    )


def test_few_shot_trains_on_all_classes_once_for_each_number_of_shots(checkout):
    lines = commands(checkout, "few_shot", trainers=["RPO"], seeds=[1])
    assert values(lines[1:], "NUM_SHOTS") == ["1", "2", "4", "8", "16"]
    assert values(lines, "SUBSAMPLE_CLASSES") == ["all"]
    assert len(lines) == 1 + 5 and "ZeroshotCLIP" in lines[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_trains_on_all_images_or_a_percentage_of_them(checkout, protocol):
    lines = commands(checkout, protocol, trainers=["RPO"], seeds=[1], shots=["10%", "all"])
    trained = [line for line in lines if "--trainer RPO" in line]
    tenth = [line for line in trained if "/shots_10%/RPO/tiny" in line]
    whole = [line for line in trained if "/shots_all/RPO/tiny" in line]
    assert len(tenth) == len(whole) == len(trained) / 2
    assert all(" DATASET.NUM_SHOTS -1 DATASET.TRAIN_FRACTION 0.1 DATASET.SUBSAMPLE_CLASSES " in line for line in tenth)
    assert all(" DATASET.NUM_SHOTS -1 DATASET.SUBSAMPLE_CLASSES " in line for line in whole)
    assert all("/shots_all/" in line for line in lines if "ZeroshotCLIP" in line)


@pytest.mark.parametrize("protocol", ["cross_dataset", "domain_generalization"])
def test_a_model_of_the_source_is_tested_on_each_target_without_training(checkout, protocol):
    lines = commands(checkout, protocol, trainers=["RPO"], seeds=[3], source="letters", datasets=["braille", "digits"])
    trained, *tests = lines[3:]
    folder = "train_source/letters/shots_16/RPO/tiny/seed3"
    assert "datasets/letters.yaml" in trained and f"--output-dir output/{folder}" in trained
    assert "--eval-only" not in trained
    for target, line in zip(["braille", "digits"], tests, strict=True):
        assert f"datasets/{target}.yaml" in line and f"--model-dir output/{folder} --eval-only" in line
        assert f"--output-dir output/{protocol}/test_{target}/letters/" in line


def test_the_two_transfers_share_their_training(checkout):
    cross, shifts = (
        {line for line in commands(checkout, protocol, trainers=["RPO"]) if "--eval-only" not in line}
        for protocol in ("cross_dataset", "domain_generalization")
    )
    assert cross == shifts and len(cross) == 3


def test_variance_has_ten_seeds_and_rpo_also_with_four_prompts(checkout):
    lines = [line for line in commands(checkout, "variance", trainers=["RPO"], shots=[1, 16]) if "RPO" in line]
    assert values(lines, "--seed") == [str(seed) for seed in range(1, 11)]
    assert len(lines) == 2 * 2 * 10 * 2
    few = [line for line in lines if line.endswith("TRAINER.RPO.K 4")]
    assert len(few) == len(lines) / 2 and all("/RPO/tiny,K=4/seed" in line for line in few)


def test_an_ablation_has_a_folder_for_every_combination(checkout):
    lines = commands(checkout, "ablation", trainers=["RPO"], seeds=[1])[2:]
    assert len(lines) == 2 * 2 * 3 * 2 * 2  # start x mask x side x K, base and new
    assert len(set(values(lines, "--output-dir"))) == len(lines)
    assert any(
        line.endswith("INIT random TRAINER.RPO.MASK False TRAINER.RPO.PROMPTS text TRAINER.RPO.K 8") for line in lines
    )


def test_values_keep_their_sign_in_names():
    assert label_of([("A.W", "-1.0"), ("A.LAYERS", "[1, 2]"), ("A.TEXTS", "[]")]) == "W=-1.0,LAYERS=1-2,TEXTS=none"


def test_requested_variants_replace_the_protocols(checkout):
    vary = {"TRAINER.SEP.LAYERS": [[1, 2], []], "OPTIM.LR": [0.1]}
    lines = commands(checkout, "ablation", trainers=["SEP"], seeds=[1], vary=vary)
    assert [line.split("/SEP/")[2].split("/")[0] for line in lines[2::2]] == [
        "tiny,LAYERS=1-2,LR=0.1",
        "tiny,LAYERS=none,LR=0.1",
    ]
    assert lines[2].endswith("TRAINER.SEP.LAYERS [1, 2] OPTIM.LR 0.1")


def test_zero_shot_clip_runs_first_and_once_per_dataset(checkout):
    lines = commands(checkout, trainers=["RPO"], datasets=["digits", "braille"], seeds=[2, 3], shots=[1, 4])
    zero_shot = [line for line in lines if "ZeroshotCLIP" in line]
    assert len(lines) == 2 * (2 + 8) and len(zero_shot) == 4
    assert zero_shot[:2] == lines[:2]
    assert all("--seed 1 " in line and "--eval-only" in line and "--model-dir" not in line for line in zero_shot)


def test_zero_shot_clip_requested_alone_runs_once(checkout):
    assert len(commands(checkout, trainers=["ZeroshotCLIP"])) == 2


def test_groups_stand_for_their_methods(checkout):
    def trainers(*names):
        jobs = plan(
            PROTOCOLS["few_shot"], checkout, Path("output"), None, RunRequest(list(names), ["digits"], seeds=[1])
        )
        return list(dict.fromkeys(job.row.trainer for job in jobs))

    assert trainers("cache", "CoOp") == ["ZeroshotCLIP", "TipAdapter", "TipAdapterF", "CoOp"]
    assert set(trainers("all")) == set(checkout.trainers()) - {"ZeroshotCLIP2", "Own"}


def test_an_empty_request_means_the_protocols_defaults(checkout):
    lines = commands(checkout)
    assert len(lines) == 2 + METHODS * 3 * 2
    assert all("datasets/digits.yaml" in line for line in lines)


def test_with_data_the_released_configs_are_used(checkout, tmp_path):
    lines = commands(checkout, data=tmp_path, datasets=["oxford_pets"], trainers=["CoOp", "RPO"], seeds=[1])
    used = {line.split("configs/trainers/")[1].split(".yaml")[0] for line in lines}
    assert used == {"ZeroshotCLIP/vit_b16", "CoOp/vit_b16_ctxv1", "RPO/main_K24"}
    assert all("--root" in line for line in lines)


def used_configs(lines):
    """Return the config of each (dataset, shots)."""
    return {
        (values([line], "--dataset-config-file")[0].split("/")[-1][:-5], int(values([line], "NUM_SHOTS")[0])): config
        for line in lines
        for config in [values([line], "--config-file")[0].split("/")[-1][:-5]]
    }


def test_a_config_may_depend_on_the_dataset_and_the_shots(checkout, tmp_path):
    request = {"data": tmp_path, "datasets": ["imagenet", "sun397", "dtd"], "seeds": [1]}
    lines = [line for line in commands(checkout, **request, trainers=["CoOp", "SEP"]) if "ZeroshotCLIP" not in line]
    coop, sep = (used_configs([line for line in lines if f"--trainer {name} " in line]) for name in ("CoOp", "SEP"))
    assert coop == {
        ("imagenet", 16): "vit_b16_ep50_ctxv1",
        ("sun397", 16): "vit_b16_ctxv1",
        ("dtd", 16): "vit_b16_ctxv1",
    }
    large = "vit_b16_ep10_batch128"
    assert sep == {("imagenet", 16): large, ("sun397", 16): large, ("dtd", 16): "vit_b16_ep50"}
    lines = commands(checkout, "few_shot", **request, trainers=["CoOp"])
    few = used_configs([line for line in lines if "--trainer CoOp " in line])
    epochs = {1: "vit_b16_ep50", 2: "vit_b16_ep100", 4: "vit_b16_ep100", 8: "vit_b16", 16: "vit_b16"}
    assert few == {("imagenet", n): "vit_b16_ep50" for n in epochs} | {
        (name, n): config for name in ("sun397", "dtd") for n, config in epochs.items()
    }


def test_a_config_may_depend_on_a_percentage_and_on_all_images(checkout, tmp_path):
    file = checkout.root / "configs" / "protocols" / "base2new.yaml"
    names = "{4: vit_b16_ep100, 10.0%: vit_b16_ep50, all: vit_b16, default: vit_b16_ctxv1}"
    file.write_text(f"shots: [4, 10%, all, 50%]\nconfigs:\n  CoOp: {names}\n")
    lines = commands(checkout, data=tmp_path, datasets=["dtd"], trainers=["CoOp"], seeds=[1])
    found = {line.split("/dtd/")[1].split("/CoOp/")[0]: values([line], "--config-file")[0] for line in lines[2:]}
    expected = {"4": "vit_b16_ep100", "10%": "vit_b16_ep50", "all": "vit_b16", "50%": "vit_b16_ctxv1"}
    assert found == {f"shots_{shots}": f"configs/trainers/CoOp/{name}.yaml" for shots, name in expected.items()}
    file.write_text("shots: all\n")
    assert values(commands(checkout), "NUM_SHOTS") == ["-1"]
    file.write_text("shots: [4, 110%]\n")
    with pytest.raises(UserError, match="^shots of base2new: expected training images per class .*got .110%"):
        commands(checkout)


def test_a_method_has_its_own_text_on_the_datasets_that_have_one(checkout, tmp_path):
    request = {"data": tmp_path, "trainers": ["SEP"], "seeds": [1]}
    lines = commands(checkout, **request, datasets=["dtd", "oxford_pets"])
    own = [line for line in lines if line.endswith("DATASET.PROMPT a photo of a {}, a type of texture.")]
    assert len(own) == 2 and all("--trainer SEP" in line and "dtd.yaml" in line for line in own)
    assert not any("DATASET.PROMPT" in line for line in lines if line not in own)
    transfer = commands(checkout, "cross_dataset", **request, datasets=["dtd", "oxford_pets"])
    assert [line.split("--trainer ")[1].split()[0] for line in transfer if "DATASET.PROMPT" in line] == ["SEP"]


def test_the_configs_that_are_used_are_explained(checkout, tmp_path):
    request = RunRequest(trainers=["CoOp", "SEP"], datasets=["imagenet", "dtd"], seeds=[1])
    lines = explain_configs(plan(PROTOCOLS["base2new"], checkout, checkout.root / "output", tmp_path, request))
    assert lines[0] == "ZeroshotCLIP: vit_b16"
    assert lines[1] == "CoOp: vit_b16_ep50_ctxv1 for imagenet (16 shots); vit_b16_ctxv1 for dtd (16 shots)"
    assert lines[2].endswith("; text for dtd: 'a photo of a {}, a type of texture.'")


@pytest.mark.parametrize("configs", ["{imagnet: vit_b16, default: vit_b16}", "{default: vit_b61}"])
def test_a_wrong_entry_of_the_configs_is_refused(checkout, tmp_path, configs):
    file = checkout.root / "configs" / "protocols" / "base2new.yaml"
    file.write_text(f"configs:\n  CoOp: {configs}\n")
    with pytest.raises(UserError, match="Did you mean"):
        commands(checkout, data=tmp_path, datasets=["dtd"], trainers=["CoOp"])


def test_repeated_names_and_seeds_count_once(checkout):
    assert len(commands(checkout, trainers=["RPO", "RPO"], datasets=["digits", "digits"], seeds=[1, 1])) == 4


def test_zero_shot_clip_keeps_its_config_when_it_has_none_of_that_name(checkout, tmp_path):
    lines = commands(checkout, data=tmp_path, datasets=["oxford_pets"], trainers=["Own"], config="two", seeds=[1])
    assert "ZeroshotCLIP/vit_b16.yaml" in lines[0] and "Own/two.yaml" in lines[2]


@pytest.mark.parametrize(
    "names, message",
    [
        ({"trainers": ["RPOO"]}, "unknown trainer 'RPOO'. Did you mean 'RPO'?"),
        ({"trainers": ["XYZ"]}, "unknown trainer 'XYZ'. Expected one of: CLIPAdapter, CLIPLoRA, CoCoOp"),
        ({"datasets": ["brail"]}, "unknown dataset 'brail'. Did you mean 'braille'?"),
        ({"trainers": ["RPO"], "config": "main_24"}, "unknown config of RPO 'main_24'. Did you mean 'main_K24'?"),
        ({"datasets": ["oxford_pets"]}, "expected the folder with the images of oxford_pets"),
        ({"protocol": "cross_dataset", "source": "oxford_pets"}, "expected the folder with the images of oxford_pets"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(checkout, names, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        commands(checkout, **names)


def test_a_method_without_a_released_config_needs_one(checkout, tmp_path):
    with pytest.raises(UserError, match="--config: expected one of one, tiny, two for Own, got none"):
        commands(checkout, data=tmp_path, datasets=["oxford_pets"], trainers=["Own"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("shot: 16", "unknown key in .*base2new.yaml: 'shot'. Did you mean 'shots'"),
        ("demo:\n  sedes: [1]", "unknown key in .*base2new.yaml: demo: 'sedes'. Did you mean 'seeds'"),
        ("- 16", "expected keys and values"),
    ],
)
def test_a_protocol_file_with_a_mistake_is_refused(checkout, text, message):
    (checkout.root / "configs" / "protocols" / "base2new.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        commands(checkout)


def test_defaults_with_a_missing_key_are_refused(checkout):
    (checkout.root / "configs" / "protocols" / "defaults.yaml").write_text("shots: [16]")
    with pytest.raises(UserError, match="defaults.yaml: expected all keys, got none for seeds, trainers"):
        commands(checkout)


def test_a_folder_that_is_not_a_checkout_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a checkout"):
        Checkout(tmp_path)


def test_without_a_folder_the_checkout_of_this_code_is_found(tmp_path, monkeypatch):
    fake = FakeCheckout(tmp_path)
    monkeypatch.chdir(fake.root)
    assert Checkout().root == fake.root


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_name_in_the_protocol_files_exists(protocol, tmp_path):
    checkout = Checkout(Path(__file__).parents[3])
    assert commands(checkout, protocol)
    assert commands(checkout, protocol, data=tmp_path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("demo", [True, False])
def test_every_setting_that_is_varied_is_a_key_of_the_method(protocol, demo):
    checkout = Checkout(Path(__file__).parents[3])
    cfg = get_cfg_default()
    checkout.load("trainers").extend_cfg(cfg)
    for grids in checkout.settings(protocol, demo)["variants"].values():
        for _, overrides in variants(grids):
            merge(cfg, opts=[word for setting in overrides for word in setting])
