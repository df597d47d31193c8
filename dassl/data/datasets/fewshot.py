"""Few-shot data sets: a split, a draw of a few images a class, and the base or new half of the classes."""

import hashlib
import json
import os
import random
from collections import Counter
from pathlib import Path

from basics import MissingFile, UserError, read_json, sweep_litter, write_json
from dassl.data.datasets.base_dataset import (
    DatasetBase,
    Datum,
    check_duplicates,
    check_images,
    check_labels,
    draw_fewshot,
    group_by_label,
    list_folder,
)
from dassl.data.datasets.splits import read_split, relative_entries, save_split, subsample_classes

LITTER_AGE = 24 * 3600  # seconds, after which nobody is still writing a record
MAX_VAL_SHOTS = 4  # the CoOp family validates on at most four images a class


class FewShotDataset(DatasetBase):
    """A data set of the CoOp family: read the split, draw the shots, keep the asked-for half of the classes.

    A subclass says only what is particular to its data set: the class attributes below, and

    - :meth:`make_split` if it has a split file but can also do without, or
    - :meth:`read` if it has no split file, and
    - :meth:`find_root` if its images do not come from the user's DATA folder.

    The draw has a random stream of its own, ``random.Random(cfg.SEED)``: train with K shots, then val with min(K, 4).
    It is the draw of the CoOp family for that seed. It is recorded in ``split_fewshot/shot_K-seed_S.json`` beside the
    images; a record that is already there must agree with the draw.

    Args:
        cfg: the config; reads SEED and DATASET.{ROOT, NUM_SHOTS, SUBSAMPLE_CLASSES, PROMPT}.

    Attributes:
        dataset_dir: folder of the data set.
        image_dir: folder that the paths in the split file are relative to.
        prompt: text template with ``{}`` for the class name.
        record_dir: folder inside dataset_dir for the records of the draws.
        test_only: the images are for testing; they stand in the place of training images too, no shots are drawn, and
            the engine refuses to train on them.
        draw_hash: SHA-256 (hex) of the drawn train and val images' relative paths and labels, all classes. It names
            the draw: equal draws have equal hashes on every machine, for all, base and new classes alike.
        rng: random stream of the split and the draw.

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
        self.prompt = _template(cfg.DATASET.PROMPT or self.prompt)
        self.rng = random.Random(cfg.SEED if cfg.SEED >= 0 else None)
        self._made_split = False

        train, val, test = self.read(root)
        check_labels(train, [*val, *test], type(self).__name__)
        if not self.test_only:  # else the test images stand in the place of training images
            check_duplicates(train, test, type(self).__name__)
        if cfg.DATASET.NUM_SHOTS >= 1 and not self.test_only:
            train, val = self._draw(train, val, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        self.draw_hash = _draw_hash(relative_entries(train, self.dataset_dir), relative_entries(val, self.dataset_dir))
        print(f"Drawn: {len(train):,} train and {len(val):,} val images, sha256 {self.draw_hash}")

        train, val, test = subsample_classes(train, val, test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=train, val=val, test=test)

    def find_root(self, cfg) -> str:
        """The folder that contains ``dataset_dir``: the user's DATA folder.

        A data set that makes its own images overrides this; ``dataset_dir`` need not be there before :meth:`read`.

        Raises:
            UserError: the config names no folder, or one that does not contain ``dataset_dir``.
        """
        name, folder = type(self).__name__, self.dataset_dir
        if not cfg.DATASET.ROOT:
            raise UserError(f"{name} needs a DATA folder that contains {folder}/: give it as --root DATA")
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        if not os.path.isdir(root):
            raise UserError(f"{name}: the DATA folder {root} does not exist; correct --root")
        if not os.path.isdir(os.path.join(root, folder)):
            raise UserError(_wrong_root(name, root, folder))
        return root

    def read(self, root: str) -> tuple[list[Datum], list[Datum], list[Datum]]:
        """All images of the data set, as train, val and test lists; val may be empty.

        ``self.dataset_dir``, ``self.image_dir`` and ``self.rng`` are set. This default reads ``split_file``, or makes
        the split and saves it there.

        Args:
            root: the folder that :meth:`find_root` gave.
        """
        path = os.path.join(self.dataset_dir, self.split_file)
        if os.path.isfile(path):
            return read_split(path, self.image_dir)

        # The draw goes on with the same stream: the original's run that makes the split draws these very shots.
        try:
            train, val, test = self.make_split()
        except MissingFile as error:
            raise UserError(
                f"{type(self).__name__}: {error}; expected it, or the split file {self.split_file} in "
                f"{self.dataset_dir}"
            ) from error
        check_images([*train, *val, *test], type(self).__name__)
        self._made_split = True
        try:
            save_split(train, val, test, path, self.image_dir)
        except UserError as error:
            print(f"Note: the split is not saved, so another seed will make another one. {error}")
        return train, val, test

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        """Train, val and test lists where there is no split file; random numbers come from ``self.rng``."""
        raise UserError(f"{type(self).__name__}: the split file {self.split_file} is not in {self.dataset_dir}")

    def _draw(self, train: list[Datum], val: list[Datum], num_shots: int, seed: int) -> tuple[list[Datum], list[Datum]]:
        """Draw the shots of all classes, and check or write their record."""
        few = [members[0].classname for members in group_by_label(train).values() if len(members) < num_shots]
        if few:
            print(f"Note: {len(few)} classes have fewer than {num_shots} images; all are kept: {', '.join(few[:3])}")
        drawn_train = draw_fewshot(train, num_shots, self.rng)
        drawn_val = draw_fewshot(val, min(num_shots, MAX_VAL_SHOTS), self.rng)
        if seed < 0:
            return drawn_train, drawn_val  # another draw in every run: nothing to record

        path = Path(self.dataset_dir, self.record_dir, f"shot_{num_shots}-seed_{seed}.json")
        note_pickle(path.with_suffix(".pkl"), "the seed gives the draw")
        record = {
            "after_making_split": self._made_split,
            "train": relative_entries(drawn_train, self.dataset_dir),
            "val": relative_entries(drawn_val, self.dataset_dir),
        }
        if not path.exists():
            sweep_litter(path.parent, older_than=LITTER_AGE)
            try:
                write_json(record, path)
            except UserError as error:
                print(f"Note: the draw is not recorded. {error}")
            return drawn_train, drawn_val

        recorded = _read_record(path)
        if all(recorded[part] == record[part] for part in ("train", "val")):
            return drawn_train, drawn_val
        if recorded["after_making_split"]:
            # The run that made the split drew from further along its stream. Its draw stays the one of this seed.
            kept_train = self._find(recorded["train"], train, drawn_train)
            kept_val = self._find(recorded["val"], val, drawn_val)
            if kept_train is not None and kept_val is not None:
                print(f"Using the draw in {path}, made together with the split")
                return kept_train, kept_val
        raise UserError(
            f"{path} records another draw of {num_shots} shots for seed {seed} than this data set gives: the images or "
            "the split have changed since. Delete the file to go on with the new draw"
        )

    def _find(self, entries: list[list], items: list[Datum], drawn: list[Datum]) -> list[Datum] | None:
        """The images that a record's entries name; None unless they could have been drawn instead of ``drawn``."""
        keys = map(json.dumps, relative_entries(items, self.dataset_dir))
        known = dict(zip(keys, items, strict=True))
        found = [known[key] for key in dict.fromkeys(map(json.dumps, entries)) if key in known]
        same_counts = Counter(item.label for item in found) == Counter(item.label for item in drawn)
        return found if same_counts and len(found) == len(entries) else None


def note_pickle(path: Path, instead: str) -> None:
    """Say that a pickle of the CoOp family, if there is one, is not read, and what takes its place."""
    if path.exists():
        print(f"Note: {path} is not read (a pickle can run code); {instead}")


def _read_record(path: Path) -> dict:
    """The record of a draw: lists train and val, and whether the run that drew it had made the split before."""
    record = read_json(path)
    if not isinstance(record, dict) or not all(isinstance(record.get(part), list) for part in ("train", "val")):
        raise UserError(f"{path} does not record a few-shot draw (lists train and val). Delete it: it is made anew")
    return {"after_making_split": False, **record}


def _draw_hash(train: list[list], val: list[list]) -> str:
    """SHA-256 (hex) of a draw's [path, label] pairs."""
    pairs = {part: [[path, label] for path, label, _ in entries] for part, entries in (("train", train), ("val", val))}
    return hashlib.sha256(json.dumps(pairs, sort_keys=True).encode()).hexdigest()


def _template(prompt: str) -> str:
    """A text template with ``{}`` for the class name; the released RPO configuration writes ``_`` there."""
    template = prompt if "{}" in prompt else prompt.replace("_", "{}")
    if "{}" not in template:
        raise UserError(f"DATASET.PROMPT must contain {{}} where the class name goes, found {prompt!r}")
    return template


def _wrong_root(name: str, root: str, folder: str) -> str:
    """What to say when the DATA folder does not hold the data set."""
    held = list_folder(root)
    found = ", ".join(held[:5]) + (", ..." if len(held) > 5 else "") if held else "nothing"
    advice = f"the folder that contains {folder}/"
    if os.path.basename(root) == folder:
        advice = f"its parent, {os.path.dirname(root)}"
    return f"{name}: expected the folder {folder}/ in the DATA folder {root}, found {found}. Give --root {advice}"
