"""The methods, one file each. A file added to this folder registers itself; nothing else needs editing.

A file declares its settings in `extend_cfg(cfg)`, which consists of assignments of literals and of `CfgNode()` only:
dassl/config/declared.py reads it as text, so that `train.py --help` need not import torch. If any file deviates, all
are imported first.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

from yacs.config import CfgNode

from dassl.config.family import add_missing_nodes

METHODS = []
for module in pkgutil.iter_modules(__path__):
    try:
        METHODS.append(importlib.import_module(f"{__name__}.{module.name}"))
    except Exception as error:  # a broken file must not disable the other methods
        print(f"warning: trainers/{module.name}.py is skipped: {type(error).__name__}: {error}", file=sys.stderr)


def extend_cfg(cfg: CfgNode) -> None:
    """Add the TRAINER keys that the methods declare, and the CoOp family's."""
    for method in METHODS:
        if hasattr(method, "extend_cfg"):
            method.extend_cfg(cfg)
    add_missing_nodes(cfg)
