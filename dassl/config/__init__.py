"""The configuration tree (yacs) and how files and options are merged into it."""

from dassl.config.defaults import FREE_TO_CHANGE, get_cfg_default
from dassl.config.merge import decode, flatten, merge, read_yaml, to_dict

__all__ = ["FREE_TO_CHANGE", "clean_cfg", "decode", "flatten", "get_cfg_default", "merge", "read_yaml", "to_dict"]


def clean_cfg(cfg, trainer):
    """Remove the nodes of all other methods: `TRAINER.NAME` and `TRAINER.<trainer in capitals>` stay."""
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            del cfg.TRAINER[key]
