"""ImageNet's validation images: one flat archive, and a development kit that gives the class of each image."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

from basics import UserError

DEVKIT = "ILSVRC2012_devkit_t12/data/"


def by_class(devkit: Path) -> Callable[[str], str]:
    """Return a function that puts a validation image (``ILSVRC2012_val_00000001.JPEG``) into its class's folder.

    Args:
        devkit: ILSVRC2012_devkit_t12.tar.gz; its hash is checked.

    Raises:
        UserError: the development kit does not contain the names of the classes or the class of each image.
    """
    from scipy.io import loadmat  # slow to import

    try:
        with tarfile.open(devkit) as archive:
            synsets = loadmat(io.BytesIO(archive.extractfile(f"{DEVKIT}meta.mat").read()), squeeze_me=True)["synsets"]
            truth = archive.extractfile(f"{DEVKIT}ILSVRC2012_validation_ground_truth.txt").read().split()
        folders = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        classes = [folders[int(number)] for number in truth]
    except (tarfile.TarError, OSError, KeyError, ValueError, EOFError) as error:
        raise UserError(
            f"{devkit}: expected the class of each validation image, got none ({error!r}). Delete it."
        ) from error

    def rename(name: str) -> str:
        number = name.removesuffix(".JPEG").rpartition("_")[2]
        return f"{classes[int(number) - 1]}/{name}" if number.isdecimal() else name

    return rename
