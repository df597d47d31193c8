"""The order in which a loader takes the images of a data set."""

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler, SequentialSampler

from dassl.utils import UserError, stream

SAMPLERS = ("RandomSampler", "SequentialSampler")


class RandomSampler(Sampler[tuple[int, int]]):
    """All images once an epoch, in an order that is a function of (seed, epoch).

    It yields (epoch, index) pairs, so that whoever loads an image can key its augmentation to the epoch. The order
    depends neither on the number of workers nor on what else draws random numbers, nor on a restart.

    Args:
        data_source: the images.
        seed: seed of the run.
    """

    def __init__(self, data_source: Sized, seed: int):
        self.data_source = data_source
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch (from 0) the next pass belongs to."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = torch.randperm(len(self.data_source), generator=stream(self.seed, "order", self.epoch))
        return ((self.epoch, index) for index in order.tolist())

    def __len__(self) -> int:
        return len(self.data_source)


def build_sampler(sampler_type: str, data_source: Sized, seed: int) -> Sampler:
    """Make the sampler that a config names (``DATALOADER.*.SAMPLER``).

    Raises:
        UserError: no sampler of that name. The samplers by domain and by class of other toolkits are not offered.
    """
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source, seed)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    raise UserError(f"DATALOADER SAMPLER must be {' or '.join(SAMPLERS)}, found {sampler_type!r}")
