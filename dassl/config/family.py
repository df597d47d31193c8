"""Settings as the repositories of the CoOp family spell them: nodes that their train.py declares, released commands.

A trainer file of the family works when it is placed into trainers/, because the nodes that it reads exist; names and
defaults are those of the train.py of CoOp, MaPLe, RPO, and PromptSRC. Released commands and config files work, because
their keys are translated.
"""

from yacs.config import CfgNode

from basics import UserError

NODES = {
    "COOP": {"N_CTX": 16, "CSC": False, "CTX_INIT": "", "PREC": "fp16", "CLASS_TOKEN_POSITION": "end"},
    "COCOOP": {"N_CTX": 16, "CTX_INIT": "", "PREC": "fp16"},
    "MAPLE": {"N_CTX": 2, "CTX_INIT": "a photo of a", "PREC": "fp16", "PROMPT_DEPTH": 9},
    "VPT": {"N_CTX_VISION": 2, "CTX_INIT": "a photo of a", "PREC": "fp16", "PROMPT_DEPTH_VISION": 1},
    "RPO": {"CTX_INIT": "", "PREC": "fp16", "K": 1},
}
NODES["IVLP"] = {**NODES["VPT"], "PROMPT_DEPTH_VISION": 9, "N_CTX_TEXT": 2, "PROMPT_DEPTH_TEXT": 9}
NODES["PROMPTSRC"] = {
    **{**NODES["IVLP"], "N_CTX_VISION": 4, "N_CTX_TEXT": 4},
    **{"TEXT_LOSS_WEIGHT": 25, "IMAGE_LOSS_WEIGHT": 10, "GPA_MEAN": 15, "GPA_STD": 1},
}

# SEP's released code is a fork of CoOp and reads CoOp's node. What it adds to the node keeps its name in ours; of the
# rest, these are the only values that it was released with.
SEP_NODE = "TRAINER.COOP."
ONLY_VALUES = {"CSC": ("False", "class-specific context"), "CLASS_TOKEN_POSITION": ("end", "another position")}
ONLY_VALUES["L_IND"] = ("0", "another list of layers; set TRAINER.SEP.LAYERS")


def add_missing_nodes(cfg: CfgNode) -> None:
    """Add the family's nodes that no method file has declared."""
    for name, keys in NODES.items():
        if name not in cfg.TRAINER:
            cfg.TRAINER[name] = CfgNode(keys)


def translate(method: str, key: str, value: object) -> list[tuple[str, object]]:
    """Return the settings here that a setting of a released command or file means; usually the same one.

    Args:
        method: the name of the trainer, as in --trainer.

    Raises:
        UserError: the method has no such setting.
    """
    if key.endswith(".CTX_INIT") and str(value) in ("True", "False", "None"):  # SEP, KgCoOp: whether to use words
        value = "a photo of a" if str(value) == "True" else ""
    if method == "SEP" and key.startswith(SEP_NODE):
        name = key.removeprefix(SEP_NODE)
        if name not in ONLY_VALUES:
            return [(f"TRAINER.SEP.{name}", value)]
        only, other = ONLY_VALUES[name]
        if str(value) != only:
            raise UserError(f"{key}: expected {only} with SEP, got {value}. SEP does not have {other}.")
        return []
    return [(key, value)]
