"""Real handwritten digits: the 1,797 images of 8 x 8 pixels that come with scikit-learn.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998).
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import stream

from .glyphs import DIGITS
from .render import SIDE, to_bytes
from .store import SEED, DemoDataset

DIGIT_SIDE, MARGIN = 28, 6  # pixels of the enlarged digit, and of the paper around it
PAPER, STROKE = 0.95, 0.10  # gray of the paper and of the full stroke


@DATASET_REGISTRY.register()
class Digits(DemoDataset):
    """Handwritten digits, dark on light. All images are used: what train and val leave is the test set."""

    dataset_dir = "digits"
    prompt = "a photo of a digit {}."
    names = DIGITS

    @classmethod
    def pictures(cls, split: str, label: int) -> Tensor:
        scans, labels = scikit_digits()
        ours = (labels == label).nonzero().squeeze(1)
        ours = ours[torch.randperm(len(ours), generator=stream(SEED, "demo", cls.dataset_dir, cls.names[label]))]
        train, val = cls.counts["train"], cls.counts["val"]
        chosen = {"train": ours[:train], "val": ours[train : train + val], "test": ours[train + val :]}[split]
        return enlarge(scans[chosen])


def enlarge(scans: Tensor) -> Tensor:
    """Enlarge (n, 8, 8) in [0, 1], 1 the full stroke, to (n, 3, 40, 40) uint8, dark on light."""
    big = F.interpolate(scans[:, None], size=(DIGIT_SIDE, DIGIT_SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
    ink = F.pad(big, (MARGIN,) * 4)
    return to_bytes(PAPER - (PAPER - STROKE) * ink).expand(-1, 3, SIDE, SIDE)


@cache
def scikit_digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's images (1797, 8, 8) float32 in [0, 1] and their labels (1797,) int64, in its order."""
    from sklearn.datasets import load_digits  # here: importing scikit-learn takes a second

    digits = load_digits()
    return torch.from_numpy(digits.images).float() / 16, torch.from_numpy(digits.target).long()
