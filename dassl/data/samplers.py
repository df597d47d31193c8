"""The order in which a loader takes the images of a data set."""

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler, SequentialSampler

from basics import UserError
from dassl.utils import stream

SAMPLERS = ("RandomSampler", "SequentialSampler")


class RandomSampler(Sampler[tuple[int, int]]):
    """All images once an epoch, in an order that is a function of (seed, epoch).

    It yields (view, index) pairs, so that whoever loads an image can key its augmentation to the view. The order
    depends neither on the number of workers nor on what else draws random numbers, nor on a restart.

    Args:
        data_source: the images.
        seed: seed of the run.
        views: how many views an image has, taken in turn; 0: a new one in every epoch.
    """

    def __init__(self, data_source: Sized, seed: int, views: int = 0):
        self.data_source = data_source
        self.seed = seed
        self.views = views
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch (from 0) the next pass belongs to."""
        self.epoch = epoch

    @property
    def view(self) -> int:
        """The number of the augmented view that the next pass takes of every image."""
        return self.epoch % self.views if self.views else self.epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        view = self.view
        order = torch.randperm(len(self.data_source), generator=stream(self.seed, "order", self.epoch))
        return ((view, index) for index in order.tolist())

    def __len__(self) -> int:
        return len(self.data_source)


class InOrder(Sampler[tuple[int, int]]):
    """All images in their order, as (view, index) pairs; ``view`` may be set before a pass."""

    def __init__(self, data_source: Sized):
        self.data_source = data_source
        self.view = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        view = self.view
        return ((view, index) for index in range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


def build_sampler(sampler_type: str, data_source: Sized, seed: int, views: int = 0) -> Sampler:
    """Make the sampler that a config names (``DATALOADER.*.SAMPLER``); ``views`` as for :class:`RandomSampler`.

    Raises:
        UserError: no sampler of that name. The samplers by domain and by class of other toolkits are not offered.
    """
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source, seed, views)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    raise UserError(f"DATALOADER SAMPLER must be {' or '.join(SAMPLERS)}, found {sampler_type!r}")
