"""The config tree (yacs), and the merging of files and options into it. Nothing here imports torch."""

from dassl.config.checks import Checks
from dassl.config.defaults import FREE_TO_CHANGE, get_cfg_default
from dassl.config.merge import decode, flatten, is_text, merge, merge_valid, to_dict
from dassl.config.yaml_files import read_yaml

__all__ = [
    "FREE_TO_CHANGE",
    "Checks",
    "clean_cfg",
    "decode",
    "flatten",
    "get_cfg_default",
    "is_text",
    "merge",
    "merge_valid",
    "read_yaml",
    "to_dict",
]


def clean_cfg(cfg, trainer):
    """Remove the nodes of all other methods; `TRAINER.NAME` and `TRAINER.<TRAINER IN CAPITALS>` stay."""
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            del cfg.TRAINER[key]
