"""The parts of a dataset: :class:`Datum` (one image) and :class:`DatasetBase` (its lists of images)."""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice

from basics import UserError, explain_os_error, log, notify


class Datum:
    """One image of a dataset: its file and its class.

    The file is not looked up here; :func:`check_images` looks up all files of a dataset together.

    Args:
        impath: path of the image file.
        label: index of the class, counted from 0.
        domain: index of the domain (0 in datasets without domains).
        classname: name of the class.
    """

    # A dataset may have ten million images. Attributes of anyone's own go to a __dict__, which exists only then.
    __slots__ = ("__dict__", "_classname", "_domain", "_impath", "_label")

    def __init__(self, impath: str = "", label: int = 0, domain: int = 0, classname: str = ""):
        if not isinstance(impath, str):
            raise UserError(f"Datum: expected impath to be a str, got {type(impath).__name__}: {impath!r}.")
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self) -> str:
        return self._impath

    @property
    def label(self) -> int:
        return self._label

    @property
    def domain(self) -> int:
        return self._domain

    @property
    def classname(self) -> str:
        return self._classname

    def __repr__(self) -> str:
        return f"Datum({self.impath!r}, label={self.label}, domain={self.domain}, classname={self.classname!r})"


def group_by_label(items: Iterable[Datum]) -> dict[int, list[Datum]]:
    """Return images by label, labels in the order of their first image."""
    by_label = defaultdict(list)
    for item in items:
        by_label[item.label].append(item)
    return by_label


def scan_folder(folder: str) -> list[os.DirEntry]:
    """Return all entries of a folder, sorted by name, so that no sample depends on the file system.

    Raises:
        UserError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise explain_os_error(folder, "a readable folder", error) from error


def list_folder(folder: str) -> list[str]:
    """Return all names in a folder, sorted.

    Raises:
        UserError: the folder cannot be listed.
    """
    return [entry.name for entry in scan_folder(folder)]


def check_images(items: Iterable[Datum], source: str) -> None:
    """Check that every image file exists, by one listing per folder (a stat per file is slow on network disks).

    Only links are followed one by one.

    Args:
        items: the images to look up.
        source: what lists them (a split file, a dataset), for the message.

    Raises:
        UserError: files are missing (reports how many and the first three), or a folder cannot be listed.
    """
    wanted = defaultdict(list)  # the names themselves would take ten times the memory
    for item in items:
        wanted[os.path.dirname(item.impath)].append(item)

    missing, total = [], 0
    for folder, inside in wanted.items():
        names = {os.path.basename(item.impath) for item in inside}
        total += len(names)
        if os.path.isdir(folder or "."):
            unlisted = [os.path.join(folder, name) for name in _not_listed(names, folder or ".")]
            # The second lookup is for links, and for file systems that ignore case or rewrite Unicode names.
            missing += [path for path in unlisted if not os.path.isfile(path)]
        else:
            missing += [os.path.join(folder, name) for name in names]
    if missing:
        first = ", ".join(f"{path}{' (a broken link)' * os.path.islink(path)}" for path in sorted(missing)[:3])
        raise UserError(
            f"{source}: expected {total:,} image files, got {total - len(missing):,}; the first missing ones: {first}. "
            "Unpack the dataset again, or correct --root or the list of files."
        )


def _not_listed(names: set[str], folder: str) -> set[str]:
    """Return those of the names that are no entry of a folder, or a link; the folder is read as a stream."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in names and not entry.is_symlink():
                    names.remove(entry.name)
    except OSError as error:
        raise explain_os_error(folder, "a readable folder", error) from error
    return names


def check_labels(train: Iterable[Datum], others: Iterable[Datum], source: str) -> None:
    """Check that the training labels are 0 to C - 1, each with one name, and that the other lists use no other labels.

    Raises:
        UserError: names the wrong labels.
    """
    names = defaultdict(set)
    for item in train:
        names[item.label].add(item.classname)
    if not names:
        raise UserError(f"{source}: expected training images, got none. Add some.")

    others = list(others)
    if min(names) < 0 or max(names) >= len(names):
        known = {item.label: f" ({item.classname})" for item in others}
        gaps = (label for label in range(max(names) + 1) if label not in names)
        first = ", ".join(f"{label}{known.get(label, '')}" for label in islice(gaps, 10))
        raise UserError(
            f"{source}: expected training labels from 0 to {max(names)} without gaps, got {len(names)} labels from "
            f"{min(names)} to {max(names)}; first classes without a training image: {first}. "
            "Add training images of these classes, or number the labels without gaps."
        )
    twice = {label: sorted(found) for label, found in names.items() if len(found) > 1}
    if twice:
        label, found = min(twice.items())
        raise UserError(
            f"{source}: expected one class name for label {label}, got {', '.join(found)}. Keep one of them."
        )
    unknown = sorted({item.label for item in others} - set(names))
    if unknown:
        raise UserError(
            f"{source}: expected val and test labels from 0 to {max(names)}, as the training images have, "
            f"got {unknown[:10]}. Add training images of these classes, or leave their other images out."
        )


def check_duplicates(train: Iterable[Datum], test: Iterable[Datum], source: str) -> None:
    """Check that no image has two labels. Print a note on images that are in train and test, and on shared class names.

    Raises:
        UserError: names the image and its labels.
    """
    labels: dict[str, int] = {}

    def note_label(item: Datum) -> None:
        if labels.setdefault(item.impath, item.label) != item.label:
            raise UserError(
                f"{source}: expected one label for {item.impath}, got {labels[item.impath]} and {item.label}. "
                "Keep one of them."
            )

    for item in train:
        note_label(item)
    both = sorted({item.impath for item in test if item.impath in labels})
    for item in test:
        note_label(item)
    if both:
        notify(
            f"Note: {len(both):,} images are in both train and test, which inflates the results: {both[0]}, ... Remove "
            "them from one of the two."
        )
    names = Counter({item.label: item.classname for item in train}.values())
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        notify(
            f"Note: {len(twice)} names are shared by several classes, whose texts are equal: {', '.join(twice[:5])}. "
            "Give these classes different names."
        )


def sample_fewshot(items: Iterable[Datum], num_shots: int, rng, repeat: bool = False) -> list[Datum]:
    """Sample ``num_shots`` images of each class, exactly as the CoOp family does.

    Classes come in the order of their first image in ``items``. A class with at least ``num_shots`` images is sampled
    without replacement (which permutes it if the numbers are equal). One with fewer keeps all of its images in order,
    or is sampled with replacement.

    Args:
        items: the images to sample from.
        num_shots: images per class, at least 1.
        rng: a ``random.Random``, or the module ``random`` for Python's global stream.
        repeat: sample with replacement where a class has too few images.
    """
    sampled = []
    for members in group_by_label(items).values():
        if len(members) >= num_shots:
            members = rng.sample(members, num_shots)
        elif repeat:
            members = rng.choices(members, k=num_shots)
        sampled += members
    return sampled


def sample_fraction(items: Iterable[Datum], fraction: float, rng: random.Random) -> list[Datum]:
    """Sample a share of the images of each class (rounded), at least one.

    Classes come in the order of their first image in ``items``. With a stream in the same state, a larger share
    includes the images of a smaller one.

    Args:
        items: the images to sample from.
        fraction: the share, above 0 and at most 1.
        rng: the random stream.
    """
    sampled = []
    for members in group_by_label(items).values():
        sampled += rng.sample(members, len(members))[: max(1, round(fraction * len(members)))]
    return sampled


class DatasetBase:
    """The training, validation and test images of a dataset.

    Subclasses create the lists and pass them to ``__init__``. :class:`dassl.data.datasets.FewShotDataset` does most of
    that work for a dataset with the usual splits and few-shot samples.

    Args:
        train_x: labeled training images.
        train_u: unlabeled training images, or None.
        val: validation images, or None.
        test: test images, or None.

    Attributes:
        untrained: names of the classes without a training image; only own images may have them.

    Raises:
        UserError: image files are missing, or the labels are not 0 to C - 1.
    """

    dataset_dir = ""  # folder of the dataset inside the DATA folder
    domains: Sequence[str] = ()  # names of the domains, in datasets that have them
    own_images = False  # a user's own: classes need no training image (a method may know them by name), nor a test

    def __init__(
        self,
        train_x: list[Datum] | None = None,
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ):
        source, train_x = type(self).__name__, train_x or []
        others = [*(val or []), *(test or [])]
        labeled = [*train_x, *others] if self.own_images else train_x
        check_labels(labeled, others, source)
        check_images([item for items in (train_x, train_u, val, test) for item in items or []], source)
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(labeled)
        self._lab2cname, self._classnames = self.get_lab2cname(labeled)
        trained = {item.label for item in train_x}
        self.untrained = [name for label, name in self._lab2cname.items() if label not in trained]

    @property
    def train_x(self) -> list[Datum]:
        return self._train_x

    @property
    def train_u(self) -> list[Datum] | None:
        return self._train_u

    @property
    def val(self) -> list[Datum] | None:
        return self._val

    @property
    def test(self) -> list[Datum] | None:
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        """Class name of each label."""
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """Class names, in the order of their labels."""
        return self._classnames

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source: Iterable[Datum]) -> int:
        """Return the number of classes: the largest label plus 1."""
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source: Iterable[Datum]) -> tuple[dict[int, str], list[str]]:
        """Return the class name of each label, and the names in the order of their labels."""
        mapping = dict(sorted({item.label: item.classname for item in data_source}.items()))
        return mapping, list(mapping.values())

    def check_input_domains(self, source_domains: Iterable[str], target_domains: Iterable[str]) -> None:
        """Check that this dataset has a config's domains."""
        self.is_input_domain_valid(source_domains)
        self.is_input_domain_valid(target_domains)

    def is_input_domain_valid(self, input_domains: Iterable[str]) -> None:
        for domain in input_domains:
            if domain not in self.domains:
                raise UserError(
                    f"{type(self).__name__}: expected one of {', '.join(self.domains) or 'no domains'}, got {domain!r}."
                )

    def generate_fewshot_dataset(self, *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False):
        """Sample ``num_shots`` images of each class with Python's global random stream.

        Args:
            data_sources: lists to sample from, one after the other.
            num_shots: images per class; below 1, the sources are returned unchanged.
            repeat: sample with replacement where a class has too few images.

        Returns:
            The sampled list; for several sources, a list of lists.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        log(f"Creating a {num_shots}-shot dataset")
        sampled = [sample_fewshot(source, num_shots, random, repeat) for source in data_sources]
        return sampled[0] if len(sampled) == 1 else sampled

    def split_dataset_by_label(self, data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Return images by label, labels in the order of their first image."""
        return group_by_label(data_source)

    def split_dataset_by_domain(self, data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Return images by domain, domains in the order of their first image."""
        by_domain = defaultdict(list)
        for item in data_source:
            by_domain[item.domain].append(item)
        return by_domain
