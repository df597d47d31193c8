"""The order in which a loader loads the images of a dataset."""

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler, SequentialSampler

from basics import UserError
from dassl.utils import stream

SAMPLERS = ("RandomSampler", "SequentialSampler")


class RandomSampler(Sampler[tuple[int, int]]):
    """All images once per epoch, in an order that is a function of (seed, epoch).

    It yields (view, index) pairs, so that augmentation can depend on the view. The order depends neither on the number
    of workers nor on other uses of random numbers, nor on a restart.

    Args:
        data_source: the images.
        seed: seed of the run.
        views: how many views an image has, used in turn; 0 for a new one in every epoch.
    """

    def __init__(self, data_source: Sized, seed: int, views: int = 0):
        self.data_source = data_source
        self.seed = seed
        self.views = views
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (from 0) of the next pass."""
        self.epoch = epoch

    @property
    def view(self) -> int:
        """The number of the augmented view of every image in the next pass."""
        return self.epoch % self.views if self.views else self.epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        view = self.view
        order = torch.randperm(len(self.data_source), generator=stream(self.seed, "order", self.epoch))
        return ((view, index) for index in order.tolist())

    def __len__(self) -> int:
        return len(self.data_source)


class InOrder(Sampler[tuple[int, int]]):
    """All images in order, as (view, index) pairs. Set ``view`` before a pass."""

    def __init__(self, data_source: Sized):
        self.data_source = data_source
        self.view = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        view = self.view
        return ((view, index) for index in range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


def build_sampler(sampler_type: str, data_source: Sized, seed: int, views: int = 0) -> Sampler:
    """Return the sampler that a config names (``DATALOADER.*.SAMPLER``); ``views`` as for :class:`RandomSampler`.

    Raises:
        UserError: unknown sampler. Dassl's samplers by domain and by class are not offered.
    """
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source, seed, views)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    raise UserError(f"DATALOADER.*.SAMPLER: expected {' or '.join(SAMPLERS)}, got {sampler_type!r}.")
