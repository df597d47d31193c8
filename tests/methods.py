"""The methods that train, each with the settings that change what it does, for claims that hold for all of them."""

import pytest
import torch

LANGUAGE_ONLY = ["TRAINER.IVLP.N_CTX_VISION", 0, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 0]  # as released
METHODS = {
    "CoOp": ["TRAINER.COOP.N_CTX", 4],
    "CoOp-words": ["TRAINER.COOP.CTX_INIT", "a photo of a"],
    "CoOp-middle": ["TRAINER.COOP.N_CTX", 4, "TRAINER.COOP.CLASS_TOKEN_POSITION", "middle"],
    "CoOp-front": ["TRAINER.COOP.N_CTX", 4, "TRAINER.COOP.CLASS_TOKEN_POSITION", "front"],
    "CoOp-CSC": ["TRAINER.COOP.N_CTX", 4, "TRAINER.COOP.CSC", True],
    "CoCoOp": ["TRAINER.COCOOP.N_CTX", 4],
    "MaPLe": ["TRAINER.MAPLE.PROMPT_DEPTH", 2],
    "MaPLe-shallow": ["TRAINER.MAPLE.PROMPT_DEPTH", 1],
    "IVLP": ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 3],
    "IVLP-text": ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 0],
    "IVLP-language-only": ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2, *LANGUAGE_ONLY],
    "IVLP-image": ["TRAINER.IVLP.PROMPT_DEPTH_TEXT", 0, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 2],
    "VPT": ["TRAINER.VPT.N_CTX_VISION", 2],
    "VPT-deep": ["TRAINER.VPT.N_CTX_VISION", 2, "TRAINER.VPT.PROMPT_DEPTH_VISION", 3],
    "VPT-dropout": ["TRAINER.VPT.DROPOUT", 0.5],
    "VPT-add": ["TRAINER.VPT.LOCATION", "add", "TRAINER.VPT.PROMPT_DEPTH_VISION", 2],
    "VPT-last": ["TRAINER.VPT.PROMPT_DEPTH_VISION", 2, "TRAINER.VPT.PROMPTS_FROM", "last"],
    "VPT-shared": ["TRAINER.VPT.PROMPT_DEPTH_VISION", 3, "TRAINER.VPT.SHARED", True],
    "VPT-pixel": ["TRAINER.VPT.LOCATION", "pixel", "TRAINER.VPT.N_CTX_VISION", 2],
    "VPT-patches": ["TRAINER.VPT.POOL", "patches"],
    "VPT-prompts": ["TRAINER.VPT.POOL", "prompts", "TRAINER.VPT.PROMPT_DEPTH_VISION", 2],
    "VPT-all": ["TRAINER.VPT.POOL", "all"],
    "VPT-head": ["TRAINER.VPT.HEAD", "linear"],
    "VPT-linear": ["TRAINER.VPT.HEAD", "linear", "TRAINER.VPT.TUNE", "linear"],
    "VPT-bias": ["TRAINER.VPT.HEAD", "linear", "TRAINER.VPT.TUNE", "bias"],
    "VPT-partial": ["TRAINER.VPT.HEAD", "linear", "TRAINER.VPT.TUNE", "partial"],
    "VPT-both": ["TRAINER.VPT.HEAD", "linear", "TRAINER.VPT.TUNE", "prompts+bias"],
    "VPT-mlp": ["TRAINER.VPT.HEAD", "linear", "TRAINER.VPT.TUNE", "linear", "TRAINER.VPT.HEAD_LAYERS", 3],
    "VPT-adapter": ["TRAINER.VPT.HEAD", "linear", "TRAINER.VPT.TUNE", "adapter"],
    "VPT-side": ["TRAINER.VPT.HEAD", "linear", "TRAINER.VPT.TUNE", "side", "TRAINER.VPT.SIDE_WEIGHTS", "random"],
    "VPT-full": ["TRAINER.VPT.HEAD", "linear", "TRAINER.VPT.TUNE", "full"],
    "KgCoOp": ["TRAINER.KGCOOP.CTX_INIT", ""],
    "KgCoOp-words": [],
    "ProGrad": ["TRAINER.PROGRAD.N_CTX", 4],
    "ProGrad-random": ["TRAINER.PROGRAD.N_CTX", 4, "TRAINER.PROGRAD.TEMPLATE_INIT", False],
    "ProGrad-short": ["TRAINER.PROGRAD.N_CTX", 2],  # fewer vectors than the template has words
    "CLIPAdapter": [],
    "TaskRes": [],
    "TipAdapter": ["TRAINER.TIPADAPTER.SEARCH_STEP", [5, 3]],
    "TipAdapterF": ["TRAINER.TIPADAPTER.SEARCH_STEP", [5, 3]],
    "CLIPLoRA": [],
    "CLIPLoRA-text": ["TRAINER.CLIPLORA.ENCODER", "text", "TRAINER.CLIPLORA.PARAMS", ["q", "o"]],
    "CLIPLoRA-vision": ["TRAINER.CLIPLORA.ENCODER", "vision"],
    "MMA": ["TRAINER.MMA.ADAPTER_START", 1, "TRAINER.MMA.ADAPTER_END", 2, "TRAINER.MMA.ADAPTER_SCALE", 0.1],
    "MMRL": ["TRAINER.MMRL.REP_LAYERS", [1, 2], "TRAINER.MMRL.REP_DIM", 8],
    "TCP": ["TRAINER.TCP.INJECT_LAYER", 1],
    "PromptSRC": ["TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 3],
    "PLOTPP": [],
    "PLOTPP-vision": ["TRAINER.PLOTPP.MODEL_UPD", "vision", "TRAINER.PLOTPP.TRADE_OFF", True],
    "LASP": [],
    "LASP-frozen": [
        *["TRAINER.LASP.FINETUNE_VIT_LN", False, "TRAINER.LASP.INCLUDE_ALL_CLASSES", True],
        *["TRAINER.LASP.EXTRA_CLASSNAMES", ["wok", "tiger_lily"]],
    ],
    "DePT": ["TRAINER.DEPT.N_CTX", 4],
    "LP": [],
    "LinearProbeCLIP": [],
    "SEP": ["TRAINER.SEP.LAYERS", [1]],
    "SEP-unfused": ["TRAINER.SEP.LAYERS", []],
    "SEP-batch": ["TRAINER.SEP.LAYERS", [0, 1], "TRAINER.SEP.SELECT", "batch"],
    "RPO": ["TRAINER.RPO.K", 3],
    "RPO-1": ["TRAINER.RPO.K", 1],
    "RPO-unmasked": ["TRAINER.RPO.K", 2, "TRAINER.RPO.MASK", False],
    "RPO-text": ["TRAINER.RPO.K", 2, "TRAINER.RPO.PROMPTS", "text"],
    "RPO-image": ["TRAINER.RPO.K", 2, "TRAINER.RPO.PROMPTS", "image", "TRAINER.RPO.INIT", "random"],
}
# For every seed.
SAME_START = ("CoOp-words", "KgCoOp-words", "ProGrad", "ProGrad-short", "LP", "TaskRes", "TipAdapter", "TipAdapterF")
FITTED = ("LinearProbeCLIP", "TipAdapter")  # at once, without steps, seed, or texts

# Variants whose code the others run too, or that take long.
SLOW = {"CLIPLoRA-text", "CLIPLoRA-vision", "VPT-side", "VPT-shared", "VPT-pixel", "RPO-1", "IVLP-text"}


def each(names, is_slow=SLOW.__contains__):
    """Parameters for a test of methods, in which some are marked slow."""
    return pytest.mark.parametrize(
        "method", [pytest.param(name, marks=[pytest.mark.slow] if is_slow(name) else []) for name in names]
    )


def is_variant(name):
    return "-" in name


WITH_STEPS = [name for name in METHODS if name not in FITTED]
every_method = each(METHODS)
every_method_with_steps = each(WITH_STEPS)
# Their variants are slow: for claims that depend little on a method's settings.
every_main_method = each(METHODS, is_variant)
every_main_method_with_steps = each(WITH_STEPS, is_variant)


def maker(make_trainer, settings):
    """Return make(method, *opts, **options of make_trainer): a trainer with the method's `settings`.

    A method's name may have a suffix, as in `METHODS`.
    """
    return lambda method, *opts, **options: make_trainer(method.split("-")[0], *settings[method], *opts, **options)


def logits(trainer):
    """Return logits of all test images."""
    images = torch.cat([batch["img"] for batch in trainer.test_loader])
    trainer.set_model_mode("eval")
    with torch.no_grad():
        return trainer.model(images)
