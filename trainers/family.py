"""Settings that the repositories of the CoOp family declare in their train.py, not in their trainer files.

With these, such a trainer file works when it is placed into trainers/, next to or instead of the file of the same name.
Names and defaults are those of the train.py of CoOp, MaPLe, RPO, and PromptSRC. A node that a file declares is kept.
"""

from yacs.config import CfgNode

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


def extend_cfg(cfg: CfgNode) -> None:
    """Add the missing nodes. A method file that is read later replaces its node."""
    for name, keys in NODES.items():
        if name not in cfg.TRAINER:
            cfg.TRAINER[name] = CfgNode(keys)
