"""Checkpoints as the methods' repositories write them give the logits of their tensors."""

import copy

import pytest
import torch
from original_files import whole_state_dict, write_original

from basics import NotApplicable, UserError
from tests.methods import logits, maker

# method: its options, the folder in its repository, whether the file holds the whole model
METHODS = {
    "CoOp": (["TRAINER.COOP.N_CTX", 4], "prompt_learner", False),
    "CoOp-CSC": (["TRAINER.COOP.N_CTX", 4, "TRAINER.COOP.CSC", True], "prompt_learner", False),
    "CoCoOp": (["TRAINER.COCOOP.N_CTX", 4], "prompt_learner", False),
    "RPO": (["TRAINER.RPO.K", 3], "prompt_learner", False),
    "LP": ([], "lp_layer", False),
    "MaPLe": (["TRAINER.MAPLE.PROMPT_DEPTH", 2], "MultiModalPromptLearner", True),
    "MaPLe-shallow": (["TRAINER.MAPLE.PROMPT_DEPTH", 1], "MultiModalPromptLearner", True),
    "IVLP": (
        ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 3],
        "VLPromptLearner",
        True,
    ),
    "VPT": (["TRAINER.VPT.PROMPT_DEPTH_VISION", 3], "prompt_learner", True),
    "SEP": (["TRAINER.SEP.LAYERS", [1]], "prompt_learner", False),
    "KgCoOp": (["TRAINER.KGCOOP.CTX_INIT", ""], "prompt_learner", False),
    "ProGrad": (["TRAINER.PROGRAD.N_CTX", 4], "prompt_learner", False),
    "CLIPAdapter": ([], "clip_adapter", False),
    "TaskRes": ([], "prompt_learner", False),
    "CLIPLoRA": ([], "lora_weights", False),
    "MMA": (["TRAINER.MMA.ADAPTER_START", 1, "TRAINER.MMA.ADAPTER_END", 2], "adapter_learner", False),
    "MMRL": (["TRAINER.MMRL.REP_LAYERS", [1, 2]], "MultiModalRepresentationLearner", True),
    "TCP": (["TRAINER.TCP.INJECT_LAYER", 1], "prompt_learner", False),
    "PromptSRC": (
        ["TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 3],
        "VLPromptLearner",
        True,
    ),
    "PLOTPP": ([], "prompt_learner", True),
    "LASP": (["TRAINER.LASP.FINETUNE_VIT_LN", False], "prompt_learner", True),
    "DePT": (["TRAINER.DEPT.N_CTX", 4], "PromptLearner", True),
}
EPOCH = 5
IN_CACHES = ("DATASET.NUM_SHOTS", 16, "TRAINER.TIPADAPTER.SEARCH_STEP", [5, 3])

every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def make(make_trainer):
    settings = {method: options for method, (options, *_) in METHODS.items()}
    return maker(make_trainer, settings | {"TipAdapter": [], "TipAdapterF": []})


def released(trainer, dtype=torch.float16):
    """Make new tensors under the prompt learner's names, and a state that adds class words of another dataset."""
    generator = torch.Generator().manual_seed(3)
    learned = trainer.model.prompt_learner.state_dict()
    learned.pop("VPT_fc.weight", None)  # SEP's prototypes belong to the classes
    learned.pop("head_classes", None)  # DePT's files do not name the classes
    tensors = {name: torch.randn(p.shape, generator=generator).mul(0.1).to(dtype) for name, p in learned.items()}
    words = {"token_prefix": torch.ones(9, 1, 16), "token_midfix": torch.ones(1), "token_suffix": torch.ones(9, 60, 16)}
    words |= {key: torch.ones(9) for key in getattr(trainer.model.prompt_learner, "ignored_keys", ())}
    if "ctx_visual" in learned:  # SEP's files hold prototypes and unused modules
        words |= {"VPT_fc.weight": torch.ones(9, 64), "meta_net_.scale1": torch.ones(1)}
        words |= {"visual_meta_net_.ln_pa_1_token.bias": torch.ones(32), "visual_prompts.1.scale2": torch.ones(1)}
        words |= {"prompt_projections.0.ln_pa_1_token.weight": torch.ones(16)}
    return tensors, {**words, **tensors}


def write(method, trainer, folder, state, dtype=torch.float16, prefix="", **changes):
    """Write the checkpoint of the method's repository; `state` has the names of the prompt learner."""
    _, name, whole = METHODS[method]
    state = whole_state_dict(copy.deepcopy(trainer.model.clip).to(dtype), state) if whole else state
    return write_original(folder / name, {prefix + key: t for key, t in state.items()}, epoch=EPOCH, **changes)


@every_method
@pytest.mark.parametrize(
    ("dtype", "prefix"), [(torch.float16, ""), pytest.param(torch.float32, "module.", marks=pytest.mark.slow)]
)
def test_a_released_file_gives_the_logits_of_its_tensors(make, tmp_path, capsys, method, dtype, prefix):
    by_hand, loaded = make(method, output="by_hand"), make(method, "SEED", 2, output="loaded")
    tensors, state = released(by_hand, dtype)
    for name, tensor in tensors.items():
        by_hand.model.prompt_learner.get_parameter(name).data.copy_(tensor)
    write(method, make(method, output="original"), tmp_path / "released", state, dtype, prefix)
    assert not torch.equal(logits(loaded), logits(by_hand))
    assert loaded.load_model(tmp_path / "released", epoch=EPOCH) == EPOCH
    assert torch.equal(logits(loaded), logits(by_hand))
    for parameter in loaded.model.prompt_learner.parameters():
        assert parameter.dtype == torch.float32 and parameter.requires_grad
    frozen = len(loaded.model.clip.state_dict()) - 1  # all but the token embedding, which is in neither encoder
    reported = f"{frozen} tensors of the frozen backbone" in capsys.readouterr().out
    assert reported == METHODS[method][2]


@every_method
def test_each_missing_tensor_and_wrong_shape_is_named(make, tmp_path, method):
    trainer = make(method)
    before = logits(trainer)
    tensors, state = released(trainer)
    for i, name in enumerate(tensors):
        for j, value in enumerate((None, torch.ones(7, 7, 7))):
            changed = {key: t for key, t in {**state, name: value}.items() if t is not None}
            write(method, trainer, tmp_path / f"{i}{j}", changed)
            with pytest.raises(UserError, match="expected the tensors of this model") as info:
                trainer.load_model(tmp_path / f"{i}{j}", epoch=EPOCH)
            (line,) = str(info.value).splitlines()[1:]
            assert line.removeprefix("prompt_learner.").startswith(f"{name}: expected shape")
    assert torch.equal(logits(trainer), before)


@every_method
def test_an_unknown_tensor_is_named(make, tmp_path, method):
    trainer = make(method)
    _, state = released(trainer)
    write(method, trainer, tmp_path / "released", {**state, "ctx_of_another": torch.ones(2)})
    with pytest.raises(UserError, match="ctx_of_another: expected no tensor of this name"):
        trainer.load_model(tmp_path / "released", epoch=EPOCH)


def test_prompts_deeper_than_the_config_are_refused(make, make_trainer, tmp_path):
    deep = make("IVLP")
    write("IVLP", deep, tmp_path / "released", released(deep)[1])
    opts = ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 2]
    with pytest.raises(
        UserError, match=r"\nimage_encoder\.transformer\.resblocks\.2\.VPT_shallow: expected no tensor of this name"
    ):
        make_trainer("IVLP", *opts, output="shallow").load_model(tmp_path / "released", epoch=EPOCH)


def test_a_file_of_another_backbone_is_refused(make, tmp_path):
    trainer = make("MaPLe")
    state = whole_state_dict(trainer.model.clip, released(trainer)[1])
    state["image_encoder.conv1.weight"] = torch.ones(32, 3, 4, 4)
    write_original(tmp_path / "released" / "MultiModalPromptLearner", state, epoch=EPOCH)
    with pytest.raises(
        UserError, match=r"image_encoder\.conv1\.weight: expected shape \(32, 3, 8, 8\), got \(32, 3, 4"
    ):
        trainer.load_model(tmp_path / "released", epoch=EPOCH)


def test_class_specific_context_of_other_classes_is_refused(make, tmp_path):
    trainer = make("CoOp-CSC")
    write("CoOp", trainer, tmp_path / "released", {"ctx": torch.ones(9, 4, 16)})
    with pytest.raises(UserError, match=r"ctx: expected shape \(5, 4, 16\), got \(9, 4, 16\)"):
        trainer.load_model(tmp_path / "released", epoch=EPOCH)


@every_method
def test_training_may_start_from_a_released_file(make, tmp_path, method):
    tensors, state = released(make(method, output="original"))
    path = write(method, make(method, output="other"), tmp_path / "released", state)
    trainer = make(method, "MODEL.INIT_WEIGHTS", str(path))
    for name, tensor in tensors.items():
        assert torch.equal(trainer.model.prompt_learner.get_parameter(name), tensor.float())
    torch.save({"ctx_of_another": torch.ones(1)}, path)
    with pytest.raises(UserError, match="ctx_of_another: expected no tensor of this name"):
        make(method, "MODEL.INIT_WEIGHTS", str(path))


def test_the_nested_file_of_cliplora_is_loaded(make, tmp_path):
    tensors, _ = released(make("CLIPLoRA", output="original"))
    nested = {}
    for name, tensor in tensors.items():
        layer, module, last = name.split(".")
        nested.setdefault(layer, {}).setdefault(module, {})[last] = tensor
    torch.save({"weights": nested, "metadata": {"r": 2, "position": "all"}}, tmp_path / "lora_weights.pt")
    trainer = make("CLIPLoRA", "MODEL.INIT_WEIGHTS", str(tmp_path / "lora_weights.pt"))
    for name, tensor in tensors.items():
        assert torch.equal(trainer.model.prompt_learner.get_parameter(name), tensor.float())


def test_the_released_norms_of_lasp_are_loaded(make_trainer, tmp_path):
    tensors, state = released(make_trainer("LASP", output="by_hand"))
    write("LASP", make_trainer("LASP", output="original"), tmp_path / "released", state)
    trainer = make_trainer("LASP")
    trainer.load_model(tmp_path / "released", epoch=EPOCH)
    assert sum(".ln_" in name for name in tensors) == 4 * len(trainer.model.clip.visual.transformer.blocks)
    for name, tensor in tensors.items():
        assert torch.equal(trainer.model.prompt_learner.get_parameter(name), tensor.float())


@pytest.fixture
def caches(make, tmp_path):
    """Write Tip-Adapter's files for 4 training images; return their folder, the keys (4, D), and the labels."""
    width = make("TipAdapterF", output="original").model.prompt_learner.keys.shape[1]
    keys, labels = torch.randn(4, width).half(), torch.tensor([3, 0, 4, 4])
    files = {"keys": keys.t(), "values": torch.nn.functional.one_hot(labels, 5).half()}
    files["best_F"] = torch.nn.Parameter(keys + 1)
    (tmp_path / "caches").mkdir()
    for name, tensor in files.items():
        torch.save(tensor, tmp_path / "caches" / f"{name}_16shots.pt")
    return tmp_path / "caches", keys.float(), labels


@pytest.mark.parametrize(("method", "shift"), [("TipAdapter", 0), ("TipAdapterF", 1)])
def test_a_released_cache_is_loaded_and_searched(make, caches, method, shift):
    folder, keys, labels = caches
    trainer = make(method, *IN_CACHES)
    trainer.evaluate(folder)
    cache = trainer.model.prompt_learner
    assert torch.equal(cache.keys, (keys.half() + shift).float()) and torch.equal(cache.labels, labels)
    found = cache.alpha.item(), cache.beta.item()
    cache.alpha.zero_()
    trainer.search()
    assert (cache.alpha.item(), cache.beta.item()) == found


def test_a_released_cache_of_other_classes_or_another_backbone_is_refused(make, caches):
    folder, keys, _ = caches
    torch.save(torch.ones(4, 9), folder / "values_16shots.pt")
    with pytest.raises(NotApplicable, match="values_16shots.pt: expected 5 classes, got 9"):
        make("TipAdapterF", *IN_CACHES).load_model(folder)
    torch.save(torch.ones(4, 5), folder / "values_16shots.pt")
    torch.save(keys[:, 1:], folder / "best_F_16shots.pt")
    with pytest.raises(UserError, match=r"adapter.weight: expected shape \(4, \d+\), got \(4, \d+\)"):
        make("TipAdapterF", *IN_CACHES).load_model(folder)
    torch.save({"keys": keys}, folder / "best_F_16shots.pt")
    with pytest.raises(UserError, match="best_F_16shots.pt: expected one matrix"):
        make("TipAdapterF", *IN_CACHES).load_model(folder)


def test_evaluation_of_a_released_file_writes_results(make, tmp_path):
    trainer = make("MaPLe")
    write("MaPLe", make("MaPLe", output="original"), tmp_path / "released", released(trainer)[1])
    trainer.evaluate(tmp_path / "released", epoch=EPOCH)
    assert (tmp_path / "run" / "results.json").is_file()
