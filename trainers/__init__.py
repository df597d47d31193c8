"""The methods, one file each. A file added to this folder registers itself; nothing else needs editing.

So does a file in the folder trainers/ of the current folder; see basics/additions.py.

A file declares its settings in `extend_cfg(cfg)`, which consists of assignments of literals and of `CfgNode()` only:
dassl/config/declared.py reads it as text, so that `train.py --help` need not import torch. If any file deviates, or
does not lie here, all are imported first.
"""

from yacs.config import CfgNode

from basics.additions import import_all
from dassl.config.family import add_missing_nodes

METHODS = import_all(__name__, __path__)


def extend_cfg(cfg: CfgNode) -> None:
    """Add the TRAINER keys that the methods declare, and the CoOp family's."""
    for method in METHODS:
        if hasattr(method, "extend_cfg"):
            method.extend_cfg(cfg)
    add_missing_nodes(cfg)
