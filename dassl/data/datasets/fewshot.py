"""Few-shot datasets: a split, a sample of a few images per class, and the base or new half of the classes."""

import hashlib
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from basics import MissingFile, UserError, cache_dir, log, notify, read_json, sweep_litter, write_json
from dassl.data.datasets.base_dataset import (
    DatasetBase,
    Datum,
    check_duplicates,
    check_images,
    check_labels,
    group_by_label,
    list_folder,
    sample_fewshot,
    sample_fraction,
)
from dassl.data.datasets.splits import read_split, relative_entries, relative_to, save_split, subsample_classes
from dassl.data.templates import prompt_template

LONGEST_NAME = 50  # letters of a dataset's folder in the name of its folder in the cache
LITTER_AGE = 24 * 3600  # seconds, after which no process is still writing a record
MAX_VAL_SHOTS = 4  # the CoOp family validates on at most four images per class


class FewShotDataset(DatasetBase):
    """A dataset of the CoOp family: read the split, sample the shots, keep the requested half of the classes.

    A subclass defines only what is specific to its dataset: the class attributes below, and

    - :meth:`make_split` if it has a split file but can also be split without it, or
    - :meth:`read` if it has no split file, and
    - :meth:`find_root` if its images are not in the user's DATA folder.

    The sample has its own random stream, ``random.Random(cfg.SEED)``: train with K shots, then val with min(K, 4).
    It is the CoOp family's sample for that seed. It is recorded in ``split_fewshot/shot_K-seed_S.json``; an existing
    record must agree with it. A share of the training images (TRAIN_FRACTION) has another stream, which depends on
    nothing but the seed, so it is not recorded.

    Records and splits that are made here are kept in ``dataset_dir``, as in the CoOp family, but in the cache if that
    folder holds the user's own images (``own_images``), which are never written to, or if it cannot be written.

    Args:
        cfg: the config; reads SEED and DATASET.{ROOT, NUM_SHOTS, TRAIN_FRACTION, REDRAW, SUBSAMPLE_CLASSES, PROMPT}.

    Attributes:
        dataset_dir: folder of the dataset.
        image_dir: folder that the paths in the split file are relative to.
        prompt: text template with ``{}`` for the class name.
        record_dir: folder inside dataset_dir for the records of the samples.
        test_only: the images are for testing only; they take the place of the training images, no shots are sampled,
            and the engine refuses to train on them.
        draw_hash: SHA-256 (hex) of the relative paths and labels of the sampled train and val images of all classes.
            It identifies the sample: equal samples have equal hashes on every machine, whether all, base or new
            classes are used.
        rng: random stream of the split and the sample.

    Raises:
        UserError: folders or files are missing, a split or a record is damaged, or labels have gaps.
    """

    dataset_dir = ""  # folder inside the DATA folder
    image_dir = ""  # folder inside dataset_dir
    split_file = ""  # file inside dataset_dir
    prompt = "a photo of a {}."
    record_dir = "split_fewshot"
    test_only = False

    def __init__(self, cfg):
        root = self.find_root(cfg)
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, self.image_dir)
        self.prompt = prompt_template(cfg.DATASET.PROMPT or self.prompt)
        self.rng = random.Random(cfg.SEED if cfg.SEED >= 0 else None)
        self._made_split = False

        train, val, test = self.read(root)
        check_labels([*train, *val, *test] if self.own_images else train, [*val, *test], type(self).__name__)
        if not self.test_only:  # else the test images are the training images, too
            check_duplicates(train, test, type(self).__name__)
        if cfg.DATASET.NUM_SHOTS >= 1 and not self.test_only:
            train, val = self._sample(train, val, cfg.DATASET.NUM_SHOTS, cfg.SEED, cfg.DATASET.REDRAW)
        elif cfg.DATASET.TRAIN_FRACTION < 1 and not self.test_only:
            rng = random.Random(f"fraction {cfg.SEED}" if cfg.SEED >= 0 else None)
            train = sample_fraction(train, cfg.DATASET.TRAIN_FRACTION, rng)
        self.draw_hash = _draw_hash(train, val, self.dataset_dir)
        log(f"Sampled: {len(train):,} train and {len(val):,} val images, sha256 {self.draw_hash}")

        train, val, test = subsample_classes(train, val, test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=train, val=val, test=test)
        if self.num_classes < 2:
            notify(f"Note: {self.classnames[0]} is the only class, so every prediction is correct")
        if self.untrained:
            notify(f"Note: {len(self.untrained)} classes have no training images: {', '.join(self.untrained[:5])}")

    def find_root(self, cfg) -> str:
        """Return the folder that contains ``dataset_dir``: the user's DATA folder.

        A dataset that creates its own images overrides this; ``dataset_dir`` need not exist before :meth:`read`.

        Raises:
            UserError: the config names no folder, or one that does not contain ``dataset_dir``.
        """
        name, folder = type(self).__name__, self.dataset_dir
        if not cfg.DATASET.ROOT:
            raise UserError(f"--root: expected the DATA folder that contains {folder}/ for {name}, got none.")
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        if not os.path.isdir(root):
            raise UserError(
                f"--root: expected the DATA folder for {name}, got {root}, which does not exist. Check the path."
            )
        if not os.path.isdir(os.path.join(root, folder)):
            raise UserError(_wrong_root(name, root, folder))
        return root

    def read(self, root: str) -> tuple[list[Datum], list[Datum], list[Datum]]:
        """Return all images of the dataset as train, val and test lists; val may be empty.

        ``self.dataset_dir``, ``self.image_dir`` and ``self.rng`` are set. This default reads ``split_file``, or makes
        the split and saves it there.

        Args:
            root: the folder that :meth:`find_root` returned.
        """
        places = [Path(self.dataset_dir, self.split_file), self._cached(self.split_file)]
        for path in places:
            if path.is_file():
                return read_split(str(path), self.image_dir)

        # The sample continues the same stream: the original's run that makes the split samples the same shots.
        try:
            train, val, test = self.make_split()
        except MissingFile as error:
            reason = str(error).removesuffix(".")
            raise UserError(
                f"{reason}. {type(self).__name__} needs it, or the split file {self.split_file} in {self.dataset_dir}."
            ) from error
        check_images([*train, *val, *test], type(self).__name__)
        self._made_split = True
        try:
            _write_first(places, lambda path: save_split(train, val, test, str(path), self.image_dir))
        except UserError as error:
            notify(f"Note: cannot save the split, so another seed will make a different one. {error}")
        return train, val, test

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        """Return train, val and test lists without a split file, with random numbers from ``self.rng``."""
        raise UserError(
            f"{type(self).__name__}: expected the split file {self.split_file} in {self.dataset_dir}, got none. "
            "Put it there."
        )

    def _cached(self, name: str) -> Path:
        """Return the path of a file about this dataset in the cache."""
        folder = os.path.realpath(self.dataset_dir)
        digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        return cache_dir("datasets", f"{os.path.basename(folder)[:LONGEST_NAME]}-{digest}", name)

    def _sample(
        self, train: list[Datum], val: list[Datum], num_shots: int, seed: int, redraw: bool
    ) -> tuple[list[Datum], list[Datum]]:
        """Sample the shots of all classes, and check or write their record."""
        few = [members[0].classname for members in group_by_label(train).values() if len(members) < num_shots]
        if few:
            notify(f"Note: {len(few)} classes have fewer than {num_shots} images; using all: {', '.join(few[:3])}")
        sampled_train = sample_fewshot(train, num_shots, self.rng)
        sampled_val = sample_fewshot(val, min(num_shots, MAX_VAL_SHOTS), self.rng)
        if seed < 0:
            return sampled_train, sampled_val  # every run has its own sample: nothing to record

        name = os.path.join(self.record_dir, f"shot_{num_shots}-seed_{seed}.json")
        cached, beside = self._cached(name), Path(self.dataset_dir, name)
        places = [cached] if self.own_images else [beside, cached]
        report_pickle(beside.with_suffix(".pkl"), "the seed determines the sample")
        record = {
            "after_making_split": self._made_split,
            "train": relative_entries(sampled_train, self.dataset_dir),
            "val": relative_entries(sampled_val, self.dataset_dir),
        }
        path = next((path for path in (cached, beside) if path.exists()), None)
        if path is None:
            try:
                _write_first(places, lambda path: _write_record(record, path))
            except UserError as error:
                notify(f"Note: cannot record the sample. {error}")
            return sampled_train, sampled_val

        recorded = _read_record(path)
        if all(recorded[part] == record[part] for part in ("train", "val")):
            return sampled_train, sampled_val
        if recorded["after_making_split"]:
            # The run that made the split sampled from further along its stream. Its sample stays the one of this seed.
            kept_train = self._find(recorded["train"], train, sampled_train)
            kept_val = self._find(recorded["val"], val, sampled_val)
            if kept_train is not None and kept_val is not None:
                log(f"Using the sample in {path}, made together with the split")
                return kept_train, kept_val
        entries = relative_entries([*train, *val], self.dataset_dir)
        # Other images at the same path, which the cache cannot tell apart.
        replaced = self.own_images and _drawn(recorded).keys().isdisjoint(path for path, *_ in entries)
        if redraw or replaced:
            kept = path
            if path in places:
                kept = _keep_old(path, recorded)
                places = [path, *places]
            _write_first(places, lambda path: _write_record(record, path))
            notify(f"Note: the images or the split have changed; recorded a new sample, and kept the old one as {kept}")
            return sampled_train, sampled_val
        raise UserError(
            f"{path}: expected this dataset's sample of {num_shots} shots for seed {seed}, got another: "
            f"{_what_changed(recorded, entries)}. Put the images back, or "
            "set DATASET.REDRAW True for a new sample; the old record is kept next to it, and other samples are "
            "unchanged."
        )

    def _find(self, entries: list[list], items: list[Datum], sampled: list[Datum]) -> list[Datum] | None:
        """Return the images of a record's entries; None if they could not have been sampled instead of ``sampled``."""
        keys = map(json.dumps, relative_entries(items, self.dataset_dir))
        known = dict(zip(keys, items, strict=True))
        found = [known[key] for key in dict.fromkeys(map(json.dumps, entries)) if key in known]
        same_counts = Counter(item.label for item in found) == Counter(item.label for item in sampled)
        return found if same_counts and len(found) == len(entries) else None


def report_pickle(path: Path, instead: str) -> None:
    """Print that a pickle of the CoOp family, if there is one, is not read, and what replaces it."""
    if path.exists():
        notify(f"Note: ignoring {path}, because a pickle can run code; {instead}")


def _write_first(places: list[Path], write: Callable[[Path], object]) -> None:
    """Write to the first of these places where that is possible.

    Raises:
        UserError: it is possible nowhere; the last place's.
    """
    for path in places[:-1]:
        with suppress(UserError):
            write(path)
            return
    write(places[-1])


def _write_record(record: dict, path: Path) -> None:
    sweep_litter(path.parent, older_than=LITTER_AGE)
    write_json(record, path)


def _keep_old(path: Path, recorded: dict) -> Path:
    """Copy a record to a name next to it, unless its folder cannot be written, where it stays; return its new path."""
    kept = _free_name(path)
    with suppress(UserError):
        write_json(recorded, kept)
        return kept
    return path


def _read_record(path: Path) -> dict:
    """Return the record of a sample: lists train and val, and whether the run that sampled them had made the split."""
    record = read_json(path)
    if not isinstance(record, dict) or not all(isinstance(record.get(part), list) for part in ("train", "val")):
        raise UserError(
            f"{path}: expected a recorded sample (lists train and val), got something else. Delete the file, "
            "which will be written again."
        )
    return {"after_making_split": False, **record}


def _drawn(recorded: dict) -> dict[str, object]:
    """Return the class name of each image of a recorded sample, by path."""
    return {
        entry[0]: entry[2]
        for entry in (*recorded["train"], *recorded["val"])
        if isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str)  # the file may be damaged
    }


def _what_changed(recorded: dict, entries: list[list]) -> str:
    """Say why a recorded sample no longer fits the images; `entries`: those of the train and val images."""
    classes = {path: name for path, _, name in entries}
    drawn = _drawn(recorded)
    gone = [path for path in drawn if path not in classes]
    renamed = [path for path in drawn if path in classes and classes[path] != drawn[path]]
    if gone:
        return f"{len(gone)} of its {len(drawn)} images are no longer train or val images, first: {gone[0]}"
    if renamed:
        return f"{len(renamed)} of its {len(drawn)} images have another class, first: {renamed[0]}"
    return f"its {len(drawn)} images exist, but the others or the order of the classes have changed since"


def _free_name(path: Path) -> Path:
    """Return a name next to a record for its old content, which no other old record has."""
    numbers = itertools.count(1)
    return next(name for n in numbers if not (name := path.with_suffix(f".old{n}.json")).exists())


def _draw_hash(train: list[Datum], val: list[Datum], folder: str) -> str:
    """Return the SHA-256 (hex) of a sample's {"train": [[path, label], ...], "val": ...}, in JSON, as a stream."""
    digest, relative = hashlib.sha256(), relative_to(folder)
    for start, items in (('{"train": [', train), ('], "val": [', val)):
        digest.update(start.encode())
        for number, item in enumerate(items):
            pair = json.dumps([relative(item.impath), item.label])
            digest.update(f", {pair}".encode() if number else pair.encode())
    digest.update(b"]}")
    return digest.hexdigest()


def _wrong_root(name: str, root: str, folder: str) -> str:
    """Return the message for a DATA folder that does not hold the dataset."""
    held = list_folder(root)
    content = ", ".join(held[:5]) + (", ..." if len(held) > 5 else "") if held else "nothing"
    advice = f"the folder that contains {folder}/"
    if os.path.basename(root) == folder:
        advice = f"its parent, {os.path.dirname(root)}"
    return f"--root: expected the folder {folder}/ of {name} in {root}, got {content}. Set --root to {advice}."
