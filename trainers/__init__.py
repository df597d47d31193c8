"""The methods, one file each. A file added to this folder registers itself; nothing else needs editing.

So does a file in the folder trainers/ of the current folder; see basics/additions.py.

A file declares its settings in `extend_cfg(cfg)`, which consists of assignments of literals and of `CfgNode()` only:
dassl/config/declared.py reads it as text, so that `train.py --help` need not import torch. If any file deviates, or
does not lie here, all are imported first.
"""

from types import ModuleType

from yacs.config import CfgNode

from basics import UserError
from basics.additions import import_all
from dassl.config.family import add_missing_nodes

METHODS = import_all(__name__, __path__)


def extend_cfg(cfg: CfgNode) -> None:
    """Add the TRAINER keys that the methods declare, and the CoOp family's.

    Raises:
        UserError: a file adds keys to a node that no file declares.
    """
    for method in sorted(METHODS, key=_is_foreign):  # other files may add to the nodes of ours, or replace them
        if hasattr(method, "extend_cfg"):
            try:
                method.extend_cfg(cfg)
            except (AttributeError, KeyError) as error:
                raise UserError(
                    f"{method.__file__}: expected extend_cfg to declare each node before its keys, got "
                    f"{type(error).__name__}: {error}. Assign a yacs.config.CfgNode() to the node first."
                ) from error
    add_missing_nodes(cfg)


def _is_foreign(method: ModuleType) -> bool:
    return not any(
        getattr(value, "for_this_engine", False) and value.__module__ == method.__name__
        for value in vars(method).values()
    )
