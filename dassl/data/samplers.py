"""The order in which a loader loads the images of a dataset."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence, Sized

import torch
from torch.utils.data import Sampler, SequentialSampler

from basics import UserError
from dassl.data.datasets import Datum
from dassl.utils import stream


class EpochSampler(Sampler[tuple[int, int]]):
    """An order that is a function of (seed, epoch), given by `order`.

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

    def order(self) -> list[int]:
        """The indices of the images in the next pass."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[tuple[int, int]]:
        view = self.view
        return ((view, index) for index in self.order())

    def __len__(self) -> int:
        return len(self.order())


class RandomSampler(EpochSampler):
    """All images once per epoch."""

    def order(self) -> list[int]:
        return torch.randperm(len(self.data_source), generator=stream(self.seed, "order", self.epoch)).tolist()

    def __len__(self) -> int:
        return len(self.data_source)


class DomainSampler(EpochSampler):
    """Batches with equally many images of each of some domains, until such a domain runs out of images.

    Dassl's RandomDomainSampler and SeqDomainSampler.

    Args:
        batch_size: images per batch.
        n_domain: domains per batch, a divisor of it, chosen at random; 0 for all.
        in_order: all domains in every batch, in their order.

    Raises:
        UserError: a batch cannot be divided so, or a domain has too few images for one batch.
    """

    def __init__(
        self,
        data_source: Sequence[Datum],
        seed: int,
        views: int = 0,
        *,
        batch_size: int,
        n_domain: int = 0,
        in_order: bool = False,
    ):
        super().__init__(data_source, seed, views)
        self.groups = _group(data_source, lambda item: item.domain)
        self.n_domain = len(self.groups) if in_order or n_domain <= 0 else n_domain
        self.n_images = batch_size // self.n_domain
        self.in_order = in_order
        key = "DATALOADER.*.BATCH_SIZE" if in_order else "DATALOADER.*.N_DOMAIN"
        if self.n_domain > len(self.groups):
            raise UserError(f"{key}: expected at most the {len(self.groups)} domains there are, got {self.n_domain}.")
        if batch_size % self.n_domain:
            raise UserError(
                f"{key}: expected {self.n_domain} domains to divide a batch, got one of {batch_size} images. "
                "Choose another batch size."
            )
        least = min(map(len, self.groups.values()))
        if least < self.n_images:
            raise UserError(
                f"{key}: expected {self.n_images} images of every domain for a batch, got {least} of one. Use smaller "
                "batches, or leave that domain out."
            )

    def order(self) -> list[int]:
        random = stream(self.seed, "order", self.epoch)
        left = {domain: _shuffle(indices, random) for domain, indices in sorted(self.groups.items())}
        order: list[int] = []
        while True:
            domains = list(left) if self.in_order else _shuffle(left, random)[: self.n_domain]
            for domain in domains:
                order += left[domain][: self.n_images]
                left[domain] = left[domain][self.n_images :]
            if any(len(left[domain]) < self.n_images for domain in domains):
                return order


class RandomClassSampler(EpochSampler):
    """Batches with `n_ins` images of each of some classes, until too few classes have so many images left.

    A class with fewer images repeats some of them. Dassl's sampler of the same name.

    Args:
        batch_size: images per batch.
        n_ins: images per class in a batch, a divisor of it.

    Raises:
        UserError: a batch cannot be divided so, or there are too few classes for a batch.
    """

    def __init__(self, data_source: Sequence[Datum], seed: int, views: int = 0, *, batch_size: int, n_ins: int):
        super().__init__(data_source, seed, views)
        if n_ins < 1 or batch_size % n_ins:
            raise UserError(f"DATALOADER.*.N_INS: expected a divisor of the batch size {batch_size}, got {n_ins}.")
        self.groups = _group(data_source, lambda item: item.label)
        self.n_ins, self.n_classes = n_ins, batch_size // n_ins
        if self.n_classes > len(self.groups):
            raise UserError(
                f"DATALOADER.*.N_INS: expected {self.n_classes} classes for a batch of {batch_size}, got "
                f"{len(self.groups)}. Increase it, or use smaller batches."
            )

    def order(self) -> list[int]:
        random, left = stream(self.seed, "order", self.epoch), {}
        for label, indices in sorted(self.groups.items()):
            if len(indices) < self.n_ins:
                indices = [indices[i] for i in torch.randint(len(indices), (self.n_ins,), generator=random).tolist()]
            left[label] = _shuffle(indices, random)
        order: list[int] = []
        while len(left) >= self.n_classes:
            for label in _shuffle(left, random)[: self.n_classes]:
                order += left[label][: self.n_ins]
                left[label] = left[label][self.n_ins :]
                if len(left[label]) < self.n_ins:
                    del left[label]
        return order


class ClassBalancedSampler(EpochSampler):
    """As many images as there are, with replacement: every class is equally likely, and every image of a class."""

    def __init__(self, data_source: Sequence[Datum], seed: int, views: int = 0):
        super().__init__(data_source, seed, views)
        counts = Counter(item.label for item in data_source)
        self.weights = torch.tensor([1 / counts[item.label] for item in data_source], dtype=torch.float64)

    def order(self) -> list[int]:
        random = stream(self.seed, "order", self.epoch)
        return torch.multinomial(self.weights, len(self.weights), replacement=True, generator=random).tolist()

    def __len__(self) -> int:
        return len(self.weights)


def _group(data_source: Sequence[Datum], key: Callable[[Datum], int]) -> dict[int, list[int]]:
    """The indices of the images by domain or class."""
    groups = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[key(item)].append(index)
    return dict(groups)


def _shuffle(values, generator: torch.Generator) -> list[int]:
    values = list(values)
    return [values[i] for i in torch.randperm(len(values), generator=generator).tolist()]


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


SAMPLERS = (
    *("RandomSampler", "SequentialSampler", "RandomDomainSampler", "SeqDomainSampler", "RandomClassSampler"),
    "ClassBalancedSampler",
)


def build_sampler(
    sampler_type: str,
    data_source: Sequence[Datum],
    seed: int,
    views: int = 0,
    batch_size: int = 1,
    n_domain: int = 0,
    n_ins: int = 1,
) -> Sampler:
    """Return the sampler that a config names (``DATALOADER.*.SAMPLER``); the arguments are those of the classes above.

    Raises:
        UserError: unknown sampler, or one that does not suit the batch size or the images.
    """
    match sampler_type:
        case "RandomSampler":
            return RandomSampler(data_source, seed, views)
        case "SequentialSampler":
            return SequentialSampler(data_source)
        case "RandomDomainSampler":
            return DomainSampler(data_source, seed, views, batch_size=batch_size, n_domain=n_domain)
        case "SeqDomainSampler":
            return DomainSampler(data_source, seed, views, batch_size=batch_size, in_order=True)
        case "RandomClassSampler":
            return RandomClassSampler(data_source, seed, views, batch_size=batch_size, n_ins=n_ins)
        case "ClassBalancedSampler":
            return ClassBalancedSampler(data_source, seed, views)
    raise UserError(f"DATALOADER.*.SAMPLER: expected one of {', '.join(SAMPLERS)}, got {sampler_type!r}.")
