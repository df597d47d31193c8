"""`dassl data list | prepare | verify | stats`: list datasets, get them, and check them."""

import argparse
import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate
from tqdm import tqdm

from basics import UserError, notify
from promptlearn.cli.parsing import key_value
from promptlearn.experiments.checkout import Checkout, refuse_unknown
from promptlearn.experiments.requested_datasets import load_dataset
from promptlearn.prepare.layout import delete_archives, is_prepared, lay_out, record_prepared
from promptlearn.prepare.sources import Source, read_sources
from promptlearn.prepare.verify import (
    Spread,
    doubtful,
    image_sizes,
    images_per_class,
    splits,
    wrong_counts,
    wrong_files,
    wrong_images,
)

if TYPE_CHECKING:
    from dassl.data.datasets import DatasetBase

HELP = """\
Datasets, in a DATA folder with the layout of CoOp's DATASETS.md. NAME is a file of configs/datasets/ without
.yaml (oxford_pets) or a registered name (OxfordPets).
"""

PREPARE_HELP = """\
Download what each dataset is missing, check it, unpack it, and compare its splits with the published sizes. Existing
files stay unchanged. After an interruption, the same command resumes; when everything is complete, it does nothing.

Without an automatic download, it lists the files to put where; run it again to continue with them.
"""

VERIFY_HELP = """\
Compare each dataset with its published sizes, and check that every image of its splits exists. Exit status 1 if
anything is wrong. Notes name images that occur twice (in training and test, in two classes), and class names that are
alike; --root with your own photos for image_folder.
"""

PUBLISHED_PARTS = ("train", "val", "test")


def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    if args.root is not None:
        args.root = Path(args.root).expanduser().resolve()
    checkout = Checkout(args.checkout)
    sources = read_sources(checkout.root / "datasets" / "sources.json")
    known = {name: checkout.registered_name(name) for name in checkout.datasets()}
    if args.verb == "list":
        return list_all(known, sources, args.root)
    names = config_names(args.names, known)
    settings = getattr(args, "settings", ())
    return args.do([Requested(checkout, name, sources.get(known[name]), args.root, settings) for name in names], args)


def config_names(names: list[str], known: dict[str, str]) -> list[str]:
    """Return each name as that of a file of configs/datasets/; `known`: these files' registered names."""
    refuse_unknown("dataset", names, [*known, *known.values()])
    by_registered = {registered: name for name, registered in known.items()}
    return [name if name in known else by_registered[name] for name in names]


class Requested:
    """A requested dataset.

    Attributes:
        name: its file in configs/datasets/, without .yaml.
        source: where it comes from; None for one that renders itself or is the user's own.
        root: the DATA folder, or None.
        settings: (key, value) of further settings.
    """

    def __init__(
        self,
        checkout: Checkout,
        name: str,
        source: Source | None,
        root: Path | None,
        settings: Iterable[tuple[str, str]] = (),
    ):
        self.checkout, self.name, self.source, self.root, self.settings = checkout, name, source, root, settings
        if source and root is None:
            raise UserError(f"--root: expected the DATA folder for {name}, got nothing. Name it.")

    def load(self) -> "DatasetBase":
        """Load all of its images. Raises UserError where a run would, too."""
        with contextlib.redirect_stdout(sys.stderr):
            return load_dataset(self.checkout, f"configs/datasets/{self.name}.yaml", self.root, self.settings)

    def examine(self, images: bool = False) -> "tuple[list[str], DatasetBase | None]":
        """List what is wrong (files first, because without them nothing can be counted), and return the dataset."""
        try:
            if self.source and (lines := wrong_files(self.source, self.root)):
                return lines, None
            dataset = self.load()
        except UserError as error:
            return [str(error)], None
        lines = wrong_counts(self.source, dataset) if self.source else []
        return lines + (wrong_images(dataset) if images else []), dataset


def list_all(known: dict[str, str], sources: dict[str, Source], root: Path | None) -> int:
    listed = {name: sources[registered] for name, registered in known.items() if registered in sources}
    rows = []
    for name, source in listed.items():
        sizes = [f"{source.images[part]:,}" if part in source.images else "" for part in PUBLISHED_PARTS]
        state = [state_of(source, root)] if root else []
        rows.append([name, f"{source.classes:,}", *sizes, download_size(source), source.folder, *state])
    header = ["name", "classes", *PUBLISHED_PARTS, "download", "folder", *(["there"] if root else [])]
    align = ["left", *["right"] * 5, "left", *(["left"] if root else [])]
    print(tabulate(rows, header, colalign=align, disable_numparse=True))
    notes = {
        "files to download by hand (`dassl data prepare NAME` lists them)": [
            name for name, source in listed.items() if any(file.by_hand for file in source.files)
        ],
        "nothing to prepare": [name for name in known if name not in listed],
    }
    print("\n?: archives without a published size")
    for note, names in notes.items():
        if names:
            print(f"{note}: {', '.join(names)}")
    return 0


def download_size(source: Source) -> str:
    known = sum(file.bytes or 0 for file in source.needed())
    unknown = any(file.gives and not file.bytes for file in source.needed())
    return " + ".join([*([size_text(known)] if known else []), *(["?"] if unknown else [])])


def state_of(source: Source, root: Path) -> str:
    if is_prepared(source, root):
        return "verified"
    missing = source.missing(root)
    return f"missing: {', '.join(path.name for path in missing[:2])}" if missing else "yes"


def prepare(requested: list[Requested], args: argparse.Namespace) -> int:
    failed = False
    for each in requested:
        if not each.source:
            notify(f"{each.name}: nothing to prepare")
            continue
        if is_prepared(each.source, each.root):
            notify(f"{each.name}: prepared and verified already")
        elif not prepare_one(each):
            failed = True
            continue
        if args.delete_archives:
            delete_archives(each.source, each.root)
    return int(failed)


def prepare_one(each: Requested) -> bool:
    """Prepare a dataset; return whether it is now complete and correct."""
    try:
        lay_out(each.source, each.root, notify)
    except UserError as error:
        notify(f"error: {error}")
        return False
    faults, _ = each.examine()
    if faults:
        notify("\n  ".join([f"error: {each.name} is laid out, but not as published:", *faults]))
        return False
    notify(f"{each.name}: prepared and verified")
    try:
        record_prepared(each.source, each.root)
    except UserError as error:  # a folder that others laid out for all may be read-only
        notify(f"Note: the next call will verify it again. {error}")
    return True


def verify(requested: list[Requested], args: argparse.Namespace) -> int:
    wrong = 0
    for each in requested:
        faults, dataset = each.examine(args.images)
        wrong += bool(faults)
        notes = [f"Note: {line}" for line in doubtful(dataset)] if dataset else []
        print("\n  ".join([f"{each.name}: {'WRONG' if faults else 'ok'}", *faults, *notes]))
    return int(wrong > 0)


def stats(requested: list[Requested], args: argparse.Namespace) -> int:
    for each in requested:
        dataset = each.load()
        classes = images_per_class(dataset)
        print(tabulate(classes, headers="keys", disable_numparse=True), end="\n\n")
        rows = [
            [part, len(items), shown(Spread.of(row[part] for row in classes))]
            for part, items in splits(dataset).items()
        ]
        print(tabulate(rows, [each.name, "images", "per class"], colalign=["left", "right", "left"]), end="\n\n")
        for what, spread in image_sizes(dataset).items():
            print(f"{what}: {shown(spread, size_text if what == 'bytes' else str)}")
    return 0


def size_text(size: int) -> str:
    return tqdm.format_sizeof(size, "B")  # as disks are sold: 1 MB is a million bytes


def shown(spread: Spread, text=str) -> str:
    return f"{text(spread.least)} to {text(spread.most)}, median {text(spread.middle)}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dassl data", description=HELP, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list | prepare | verify | stats")

    def add_verb(name: str, what: str, do=None, description: str = "") -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=what, description=description or what, allow_abbrev=False)
        if do:
            verb.set_defaults(do=do)
            verb.add_argument("names", nargs="+", metavar="NAME", help="a dataset")
        verb.add_argument("--root", metavar="DATA", required=do is prepare, help="the folder of all datasets")
        verb.add_argument("--checkout", metavar="FOLDER", help="where datasets/ is, if not here or installed")
        return verb

    add_verb("list", "the datasets and their sizes; with --root, which ones are present")
    add_verb("prepare", "download, check, unpack, and verify", prepare, PREPARE_HELP).add_argument(
        "--delete-archives", action="store_true", help="delete a dataset's archives once it is verified"
    )
    verifies = add_verb("verify", "compare with the published sizes", verify, VERIFY_HELP)
    verifies.add_argument("--images", action="store_true", help="also decode every image")
    for verb in (verifies, add_verb("stats", "classes, images per class, sizes of images", stats)):
        verb.add_argument(
            "--set",
            dest="settings",
            action="append",
            default=[],
            type=key_value,
            metavar="KEY=VALUE",
            help="a setting, such as DATASET.CLASS_LEVEL=2 of image_folder",
        )
    return parser
