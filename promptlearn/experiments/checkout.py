"""The checkout, or what an installation carries of it: train.py, the configs, and the names that they offer."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from basics import UserError, did_you_mean
from basics.additions import config_folders
from dassl.config import FREE_TO_CHANGE, decode, flatten, read_yaml

# The keys of configs/protocols/*.yaml; configs/protocols/defaults.yaml explains them.
SETTINGS = ("shots", "seeds", "trainers", "groups", "datasets", "source", "configs", "prompts", "variants", "builtin")


PACKAGE = Path(__file__).resolve().parents[1]
BUNDLE = PACKAGE / "bundle"  # in an installation: train.py, trainers/, datasets/, and configs/; see setup.py


class Checkout:
    """The project's own files, and the user's configs.

    Without `root`: the checkout that is the current folder, or else the files that are installed with this package.

    Attributes:
        root: the folder with train.py, trainers/, datasets/, and configs/. It may be read-only.
        folder: where runs start, and their relative paths begin: the given checkout, or else the current folder.
        config_folders: configs/ of `folder`, those of installed packages, and that of `root`; the first one that has a
            file is used.
    """

    def __init__(self, root: str | Path | None = None):
        candidates = [Path(root)] if root else list(dict.fromkeys([Path.cwd(), BUNDLE, PACKAGE.parent]))
        for candidate in candidates:
            if (candidate / "train.py").is_file() and (candidate / "configs" / "protocols").is_dir():
                self.root = candidate.resolve()
                break
        else:
            raise UserError(
                f"{' and '.join(map(str, candidates))}: expected a checkout (train.py and configs/), got none. "
                "Run the command in the cloned repository, or give --checkout FOLDER."
            )
        self.folder = self.root if root else Path.cwd()
        self.config_folders = config_folders(self.folder, self.root / "configs")

    def config(self, path: str) -> Path:
        """Find a file below configs/, such as `datasets/digits.yaml`.

        Raises:
            UserError: there is none.
        """
        for folder in self.config_folders:
            if (folder / path).is_file():
                return folder / path
        places = ", ".join(map(str, self.config_folders))
        raise UserError(f"{path}: expected a file in {places}, got none. Correct the name, or create the file.")

    def names(self, pattern: str) -> list[str]:
        """List the files below configs/ that match, without folders and `.yaml`."""
        return sorted({path.stem for folder in self.config_folders for path in folder.glob(pattern)})

    def trainers(self) -> list[str]:
        """List the methods: folders of configs/trainers/ with settings."""
        return sorted({path.parent.name for each in self.config_folders for path in each.glob("trainers/*/*.yaml")})

    def datasets(self) -> list[str]:
        """List the datasets: files of configs/datasets/, without `.yaml`."""
        return self.names("datasets/*.yaml")

    def configs(self, trainer: str) -> list[str]:
        """List a method's settings: files of configs/trainers/<trainer>/, without `.yaml`."""
        return self.names(f"trainers/{trainer}/*.yaml")

    def registered_name(self, dataset: str) -> str:
        """Return the name under which a run of configs/datasets/<dataset>.yaml reports its dataset."""
        return registered_name_in(self.config(f"datasets/{dataset}.yaml"))

    def file(self, argument: str) -> Path:
        """Find the config file that an argument of train.py names: configs/..., or any other path."""
        inside = argument.removeprefix("configs/")
        return self.folder / argument if inside == argument else self.config(inside)

    def values(self, dataset: str, trainer: str, config: str) -> dict:
        """Read all settings of a run's two configuration files that decide its numbers: {dotted key: value}.

        `dataset` is the yaml file, as an argument of train.py; `config` is a file of configs/trainers/`trainer`/.

        Shots and classes are left out: jobs set them.
        """
        values = {}
        for path in (self.file(dataset), self.config(f"trainers/{trainer}/{config}.yaml")):
            values |= flatten(read_yaml(path) or {})
        left_out = {"DATASET.NUM_SHOTS", "DATASET.TRAIN_FRACTION", "DATASET.SUBSAMPLE_CLASSES", *FREE_TO_CHANGE}
        return {key: plain(decode(value)) for key, value in values.items() if key not in left_out}

    def settings(self, protocol: str, demo: bool) -> dict:
        """Read configs/protocols/defaults.yaml, overridden by <protocol>.yaml and, for the demo, by the `demo` of both.

        The keys are SETTINGS. In `demo`, `config` names the config of every method.
        """
        defaults = self.config("protocols/defaults.yaml")
        shared, own = read_settings(defaults), read_settings(self.config(f"protocols/{protocol}.yaml"))
        missing = [key for key in (*SETTINGS, "demo") if key not in shared]
        if missing:
            raise UserError(f"{defaults}: expected all keys, got none for {', '.join(missing)}. Add them.")
        settings = {key: own.get(key, shared[key]) for key in SETTINGS}
        for key in ("configs", "prompts"):  # method by method
            settings[key] = shared[key] | own.get(key, {})
        if demo:
            changes = shared["demo"] | own.get("demo", {})
            settings |= {"configs": dict.fromkeys(self.trainers(), changes.pop("config", None)), "prompts": {}}
            settings |= changes
        return settings

    def load(self, package: str) -> ModuleType:
        """Import `datasets` or `trainers` (or a module in them), as train.py would.

        Neither is installed, so a library of the same name may be: ours goes before it, but only for this import. In
        a user's program, a later `import datasets` finds the library.

        Raises:
            UserError: a package of that name from elsewhere was imported, already before or instead of a missing one.
        """
        root = str(self.root)
        sys.path.insert(0, root)
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name not in (package, package.partition(".")[0]):
                raise  # the package exists, but something it imports does not
            raise UserError(
                f"{self.root}: expected the package {package} in this checkout, got none. Restore it, or install again."
            ) from None
        finally:
            sys.path.remove(root)
        found = Path(module.__file__ or "").resolve()
        if not found.is_relative_to(self.root):
            raise UserError(
                f"{package}: expected the one in the checkout {self.root}, got {found}, which hides it. Rename that "
                "one, or take its folder out of PYTHONPATH."
            )
        return module

    def shown(self, path: Path) -> str:
        """Shorten a path for a run: relative if it is inside the folder where runs start."""
        return str(path.relative_to(self.folder) if path.is_relative_to(self.folder) else path)


def registered_name_in(path: Path) -> str:
    """Return the DATASET.NAME of a yaml file. Raises UserError if it has none."""
    try:
        name = read_yaml(path)["DATASET"]["NAME"]
    except (KeyError, TypeError):
        name = None
    if not isinstance(name, str):
        raise UserError(f"{path}: expected DATASET with NAME below it, got neither. Add them.")
    return name


def plain(value):
    """Convert a setting to the form that results.json holds."""
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def read_settings(path: Path) -> dict:
    """Read a file of configs/protocols/. Raise UserError when a key in it is unknown."""
    settings = read_yaml(path) or {}
    if not isinstance(settings, dict) or not isinstance(settings.get("demo", {}), dict):
        raise UserError(f"{path}: expected keys and values, also under `demo`, got something else. Fix it.")
    refuse_unknown(f"key in {path}:", [*settings], [*SETTINGS, "demo"])
    refuse_unknown(f"key in {path}: demo:", [*settings.get("demo", {})], [*SETTINGS, "config"])
    return settings


def refuse_unknown(kind: str, names: list[str], known: list[str]) -> None:
    """Raise UserError for the first of `names` that is not `known`, with the nearest and the whole list."""
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"unknown {kind} {name!r}.{hint} Expected one of: {', '.join(known) or 'none'}.")
