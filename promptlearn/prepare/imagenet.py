"""ImageNet's validation images: one flat archive, and a development kit that says what each of them shows."""

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from scipy.io import loadmat

from basics import UserError
from promptlearn.prepare.unpack import Entry

DEVKIT = "ILSVRC2012_devkit_t12/data/"


def by_class(devkit: Path) -> Callable[[Iterator[Entry]], Iterator[Entry]]:
    """What puts each validation image (``ILSVRC2012_val_00000001.JPEG``, ...) into its class's folder (``n...``).

    Args:
        devkit: ILSVRC2012_devkit_t12.tar.gz; its hash is checked.

    Raises:
        UserError: it does not hold the names of the classes and the class of each image.
    """
    try:
        with tarfile.open(devkit) as archive:
            synsets = loadmat(io.BytesIO(archive.extractfile(f"{DEVKIT}meta.mat").read()), squeeze_me=True)["synsets"]
            truth = archive.extractfile(f"{DEVKIT}ILSVRC2012_validation_ground_truth.txt").read().split()
        folders = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        shows = [folders[int(number)] for number in truth]
    except (tarfile.TarError, OSError, KeyError, ValueError, EOFError) as error:
        raise UserError(f"{devkit} does not say which class each validation image has ({error!r})") from error

    def arrange(entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            name = PurePosixPath(entry.name).name
            if entry.kind == "file":
                number = int(name.rpartition("_")[2].partition(".")[0])
                yield replace(entry, name=f"{shows[number - 1]}/{name}")

    return arrange
