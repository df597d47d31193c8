"""Further methods compute what their authors' released code computes (tests/data/further_values.json)."""

import copy
import json
from pathlib import Path

import pytest
import torch
from reference import prompt_std, reference_clip, reference_images, uniform

import trainers
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.averaging import EpochAverage, gaussian_weights
from dassl.engine.losses import CrossEntropy
from dassl.engine.models import TrainerBase

CASES = json.loads((Path(__file__).parents[1] / "data" / "further_values.json").read_text())
# Method in the file: our trainer, and its settings by name in the case.
METHODS = {
    "KgCoOp": ("KgCoOp", {"n_ctx": "N_CTX", "ctx_init": "CTX_INIT", "w": "W"}),
    "ProGrad": ("ProGrad", {"n_ctx": "N_CTX", "ctx_init": "TEMPLATE_INIT", "T": "T", "lambda_": "LAMBDA"}),
    "CLIP-Adapter": ("CLIPAdapter", {"reduction": "REDUCTION", "ratio": "RATIO"}),
    "TaskRes": ("TaskRes", {"alpha": "ALPHA"}),
    "CLIP-LoRA": ("CLIPLoRA", {"r": "R", "alpha": "ALPHA", "params": "PARAMS", "position": "POSITION"}),
    "MMA": (
        "MMA",
        {f"adapter_{key}": f"ADAPTER_{key.upper()}" for key in ("start", "end", "dim", "scale")},
    ),
    "MMRL": (
        "MMRL",
        {"rep_layers": "REP_LAYERS", "n_rep_tokens": "N_REP_TOKENS", "rep_dim": "REP_DIM", "reg_weight": "REG_WEIGHT"},
    ),
    "TCP": ("TCP", {"n_ctx": "N_CTX", "w": "W", "inject_layer": "INJECT_LAYER"}),
    "PromptSRC": (
        "PromptSRC",
        {
            **{"n_ctx_text": "N_CTX_TEXT", "n_ctx_vision": "N_CTX_VISION", "ctx_init": "CTX_INIT"},
            **{"depth_text": "PROMPT_DEPTH_TEXT", "depth_vision": "PROMPT_DEPTH_VISION"},
            **{"text_loss_weight": "TEXT_LOSS_WEIGHT", "image_loss_weight": "IMAGE_LOSS_WEIGHT"},
        },
    ),
    "PLOT++": (
        "PLOTPP",
        {
            **{"M": "M", "n_ctx_v": "N_CTX_V", "prompt_prefixes": "CTX_INIT"},
            **{"update": "MODEL_UPD", "trade_off": "TRADE_OFF"},
        },
    ),
    "LASP": (
        "LASP",
        {
            **{"n_ctx": "N_CTX", "ctx_init": "CTX_INIT", "lasp_prompts": "LASP_PROMPTS", "noise": "NOISE"},
            **{"lasp_loss_weight": "LASP_LOSS_WEIGHT", "finetune_vit_ln": "FINETUNE_VIT_LN"},
            **{"extra_classnames": "EXTRA_CLASSNAMES"},
        },
    ),
    "DePT-CoOp": (
        "DePT",
        {"n_ctx": "N_CTX", "ctx_init": "CTX_INIT", "weight": "W", "lr_mult_new": "LR_MULT"},
    ),
    "Tip-Adapter-F": ("TipAdapterF", {"alpha": "ALPHA", "beta": "BETA"}),
}
KEEP_UNDERSCORES = ("TaskRes",)  # as released
NAMES = [each["case"]["method"] for each in CASES]
REFERENCES = [  # a method's further cases are slow
    pytest.param(each, id=f"{name}-{i}", marks=[pytest.mark.slow] if name in NAMES[:i] else [])
    for i, (name, each) in enumerate(zip(NAMES, CASES, strict=True))
    if name in METHODS
]


@pytest.fixture(scope="module")
def backbone():
    """Return backbone(layers): a frozen CLIP with the reference weights."""
    torch.backends.cudnn.allow_tf32 = False  # as in train.py
    made = {}

    def of(layers):
        if layers not in made:
            made[layers] = reference_clip(layers)
        return made[layers]

    return of


def make_trainer(case, clip_model):
    """Return the trainer of a case, with its model, but without data and optimizer."""
    name, keys = METHODS[case["method"]]
    trainer = object.__new__(TRAINER_REGISTRY.get(name))
    TrainerBase.__init__(trainer)
    trainer.cfg, trainer.cross_entropy = get_cfg_default(), CrossEntropy()
    trainers.extend_cfg(trainer.cfg)
    for key, ours in keys.items():
        if key in case or ours == "CTX_INIT":
            trainer.options[ours] = case.get(key, "")
    trainer.cfg.OPTIM.LR = case["lr"]
    if "extra_classnames" in case:  # the file's logits hold them, too
        trainer.options.INCLUDE_ALL_CLASSES = True
    trainer.cfg.DATASET.KEEP_UNDERSCORES = case["method"] in KEEP_UNDERSCORES
    classnames = trainer.names_in_texts(case["classnames"])
    templates = case.get("templates") or [
        case.get("teacher_template") or case.get("prompt_template") or case.get("template", "a photo of a {}.")
    ]
    if templates != "released":
        trainer.cfg.DATASET.PROMPT = templates[0]
        texts = {name.replace("_", " "): [each.replace("{}", name) for each in templates] for name in classnames}
        trainer.given_texts = lambda: texts
    trainer.device = clip_model.logit_scale.device
    trainer.model = trainer.build_method(clip_model, classnames).to(trainer.device)
    return trainer


def set_keys(model, reference, images):
    """Set the keys of Tip-Adapter to the shortest ones with the affinities of the case.

    The file does not say of which images the keys are. Only their products with the image features count, and steps
    change them only along these features.
    """
    (same,) = (each for each in CASES if each["case"] == {**reference["case"], "method": "Tip-Adapter"})
    features = model.image_features(images).double()
    keys = torch.linalg.pinv(features) @ torch.tensor(same["affinity"], dtype=torch.float64).to(features)
    model.prompt_learner.resize({"adapter.weight": keys.t()})
    model.prompt_learner.keys.data.copy_(keys.t())
    model.prompt_learner.labels.copy_(torch.tensor(same["cache_labels"]))


def set_tensors(module, reference):
    """Set all trained tensors of a module to those of the case."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert parameters.keys() == reference["learnable"].keys()
    for name, shape in reference["learnable"].items():
        if name.startswith("image_encoder.") and "start" in reference:
            continue  # LASP's LayerNorms start as the backbone's
        plus, _, std = str(reference.get("std", {}).get(name, prompt_std(name))).rpartition(" + ")
        value = uniform(name, shape, float(std), reference["case"]["salt"]) + float(plus or 0)
        parameters[name].data.copy_(value.view_as(parameters[name]))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("reference", REFERENCES)
def test_logits_gradients_and_four_steps_equal_the_released_code(reference, device, backbone):
    case, norms = reference["case"], reference["grad_norm"]
    clip_model = backbone(case["layers"]).to(device)
    trainer = make_trainer(case, copy.deepcopy(clip_model) if case.get("finetune_vit_ln") else clip_model)
    learner = trainer.model.prompt_learner
    images = reference_images(case["batch"], case["salt"]).to(device)
    labels = torch.arange(case["batch"], device=device)
    if case["method"] == "Tip-Adapter-F":
        set_keys(trainer.model, reference, images)
    else:
        set_tensors(learner, reference)
    for name, shape in reference.get("all_prompts", {}).items():  # also those that are not trained
        learner.get_parameter(name).data.copy_(uniform(name, shape, prompt_std(name), case["salt"]))
    with torch.no_grad():
        logits = trainer.model.eval()(images).cpu()
    expected_logits = torch.tensor(reference["logits"])[:, : len(case["classnames"])]
    torch.testing.assert_close(logits, expected_logits, atol=2e-3, rtol=0)
    groups = trainer.parameter_groups(learner) or [p for p in learner.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(groups, lr=case["lr"])
    for step, expected in enumerate(reference["losses"]):
        loss, _ = trainer.loss(images, labels)
        assert loss.item() == pytest.approx(expected, abs=1e-3)
        optimizer.zero_grad()
        trainer.model_backward(loss)
        if step == 0:
            found = {name: p.grad.norm().item() for name, p in learner.named_parameters() if p.requires_grad}
            assert found == pytest.approx(norms, rel=0.01)
        optimizer.step()


@pytest.mark.slow
def test_promptsrc_averages_its_epochs_like_the_released_code(backbone):
    (reference,) = (each for each in CASES if "gpa" in each)
    case, expected = reference["case"], reference["gpa"]
    trainer = make_trainer(case, backbone(case["layers"]))
    learner = trainer.model.prompt_learner
    set_tensors(learner, reference)
    images, labels = reference_images(case["batch"], case["salt"]), torch.arange(case["batch"])
    average = EpochAverage(gaussian_weights(expected["epochs"], expected["mean"], expected["std"]))
    assert average.weights == pytest.approx(expected["weights"], abs=1e-5)
    optimizer = torch.optim.SGD(learner.parameters(), lr=case["lr"])
    for epoch in range(expected["epochs"]):
        optimizer.zero_grad()
        trainer.loss(images, labels)[0].backward()
        optimizer.step()
        average.add(learner, epoch)
    average.copy_to(learner)
    assert learner.ctx.norm().item() == pytest.approx(expected["ctx_norm"], abs=1e-3)
    with torch.no_grad():
        logits = trainer.model.eval()(images)
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), atol=2e-3, rtol=0)
