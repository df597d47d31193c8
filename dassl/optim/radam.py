"""torch's RAdam, in the module from which the CoOp family imports it."""

from torch.optim import RAdam

__all__ = ["RAdam"]
