"""Demo datasets as ordinary image files: rendered once from a fixed seed, on first use, into the cache."""

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from PIL import Image
from torch import Tensor

from basics import UserError, cache_dir, read_json, show_progress, write_json
from dassl.data.datasets import Datum, FewShotDataset

SEED = 1  # of all demo datasets; another seed makes other images, so everyone uses this one
VERSION = 1  # increase it when the images change: folders of an earlier version are then refused, not mixed
SPLITS = ("train", "val", "test")
MANIFEST = "rendered.json"
PARTIAL = ".images-"  # start of the names of folders that are being rendered
LITTER_AGE = 3600.0  # seconds; a folder that old was left by a killed process, since rendering takes a minute


class DemoDataset(FewShotDataset):
    """A dataset that makes its own images.

    A subclass gives `dataset_dir`, `prompt`, `names` (class names in label order) and `pictures`.
    `counts`: images of each class in a split.
    """

    image_dir = "images"
    names: tuple[str, ...]
    counts = {"train": 32, "val": 8, "test": 40}

    @classmethod
    def pictures(cls, split: str, label: int) -> Tensor:
        """Return all images of one class in one split: (n, 3, 40, 40) uint8, the same at every call."""
        raise NotImplementedError

    def find_root(self, cfg) -> str:
        """Return a folder of the cache, whatever DATASET.ROOT says: that may be a folder of the user's own images."""
        return str(cache_dir("demo"))

    def read(self, root: str) -> tuple[list[Datum], list[Datum], list[Datum]]:
        images = self.rendered(Path(self.dataset_dir))
        return tuple(
            [
                Datum(impath=str(path), label=label, classname=name)
                for label, name in enumerate(self.names)
                for path in sorted((images / split / folder_name(name)).glob("*.png"))
            ]
            for split in SPLITS
        )

    @classmethod
    def rendered(cls, folder: Path) -> Path:
        """Return the images below a dataset's folder; render them if they are not there.

        They appear complete or not at all, also when two processes render at once: both make the same images, and
        those of the first one done are kept.

        Returns:
            `<folder>/images`, with `<split>/<class>/NNNN.png` and `rendered.json`.

        Raises:
            UserError: the folder cannot be written, or holds other or incomplete images.
        """
        images = folder / cls.image_dir
        _sweep(folder)
        if not images.exists():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder))
                try:
                    cls._render(partial)
                    _move(partial, images)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
            except OSError as error:
                raise UserError(
                    f"{folder}: expected a writable folder for the demo dataset {cls.__name__}, got an error: "
                    f"{error.strerror}. Choose another folder by the environment variable DASSL_CACHE."
                ) from error
        cls._check(images)
        return images

    @classmethod
    def _render(cls, folder: Path) -> None:
        parts = [(split, label) for split in SPLITS for label in range(len(cls.names))]
        for split, label in show_progress(parts, f"rendering {cls.__name__}"):
            place = folder / split / folder_name(cls.names[label])
            place.mkdir(parents=True)
            for number, picture in enumerate(cls.pictures(split, label)):
                Image.fromarray(picture.permute(1, 2, 0).numpy()).save(place / f"{number:04}.png")
        write_json({"version": VERSION, "pictures": _count(folder)}, folder / MANIFEST)

    @classmethod
    def _check(cls, images: Path) -> None:
        """Check that the folder holds all that this version renders."""
        advice = "Delete the folder to render it again."
        if not (images / MANIFEST).is_file():
            raise UserError(f"{images}: expected rendered images of {cls.__name__}, got others. Move them away.")
        made, found = read_json(images / MANIFEST), _count(images)
        if made["version"] != VERSION:
            raise UserError(f"{images}: expected images of version {VERSION}, got version {made['version']}. {advice}")
        if made["pictures"] != found:
            raise UserError(f"{images}: expected {made['pictures']} images, got {found}. {advice}")


def folder_name(class_name: str) -> str:
    """Return the name of a class's folder: "letter a" -> "letter_a"."""
    return class_name.replace(" ", "_")


def _count(images: Path) -> int:
    return sum(1 for _ in images.glob("*/*/*.png"))


def _sweep(folder: Path) -> None:
    """Delete what killed processes of this user have left."""
    for path in folder.glob(f"{PARTIAL}*"):
        with suppress(OSError):  # another process sweeps, too
            status = path.stat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > LITTER_AGE:
                shutil.rmtree(path, ignore_errors=True)


def _move(partial: Path, images: Path) -> None:
    partial.chmod(0o755)  # a temporary folder is its owner's alone
    try:
        os.rename(partial, images)
    except OSError:
        if not images.exists():  # where it does, another process was faster
            raise
