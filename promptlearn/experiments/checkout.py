"""The checkout: where train.py and the configs are, and which names they offer."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from basics import UserError, did_you_mean
from dassl.config import FREE_TO_CHANGE, decode, flatten, read_yaml

# The keys of configs/protocols/*.yaml; configs/protocols/defaults.yaml explains them.
SETTINGS = ("shots", "seeds", "trainers", "datasets", "source", "configs", "prompts", "variants", "builtin")


class Checkout:
    """A folder with train.py and configs/.

    Without `root`: the current folder, or else the one that contains this file.
    """

    def __init__(self, root: str | Path | None = None):
        candidates = [Path(root)] if root else list(dict.fromkeys([Path.cwd(), Path(__file__).resolve().parents[2]]))
        for candidate in candidates:
            if (candidate / "train.py").is_file() and (candidate / "configs").is_dir():
                self.root = candidate.resolve()
                return
        raise UserError(
            f"{' and '.join(map(str, candidates))}: expected a checkout (train.py and configs/), got none. "
            "Run the command in the cloned repository, or give --checkout FOLDER."
        )

    def trainers(self) -> list[str]:
        """List the methods: folders of configs/trainers/."""
        return sorted(path.name for path in (self.root / "configs" / "trainers").glob("*") if path.is_dir())

    def datasets(self) -> list[str]:
        """List the datasets: files of configs/datasets/, without `.yaml`."""
        return sorted(path.stem for path in (self.root / "configs" / "datasets").glob("*.yaml"))

    def configs(self, trainer: str) -> list[str]:
        """List a method's settings: files of configs/trainers/<trainer>/, without `.yaml`."""
        return sorted(path.stem for path in (self.root / "configs" / "trainers" / trainer).glob("*.yaml"))

    def registered_name(self, dataset: str) -> str:
        """Return the name under which a run of configs/datasets/<dataset>.yaml reports its dataset."""
        path = self.root / "configs" / "datasets" / f"{dataset}.yaml"
        try:
            return read_yaml(path)["DATASET"]["NAME"]
        except (KeyError, TypeError):
            raise UserError(f"{path}: expected DATASET with NAME below it, got neither.") from None

    def values(self, dataset: str, trainer: str, config: str) -> dict:
        """Read all settings of a run's two configuration files that decide its numbers: {dotted key: value}.

        Shots and classes are left out: jobs set them.
        """
        values = {}
        for path in (f"datasets/{dataset}.yaml", f"trainers/{trainer}/{config}.yaml"):
            values |= flatten(read_yaml(self.root / "configs" / path) or {})
        left_out = {"DATASET.NUM_SHOTS", "DATASET.TRAIN_FRACTION", "DATASET.SUBSAMPLE_CLASSES", *FREE_TO_CHANGE}
        return {key: plain(decode(value)) for key, value in values.items() if key not in left_out}

    def settings(self, protocol: str, demo: bool) -> dict:
        """Read configs/protocols/defaults.yaml, overridden by <protocol>.yaml and, for the demo, by the `demo` of both.

        The keys are SETTINGS. In `demo`, `config` names the config of every method.
        """
        folder = self.root / "configs" / "protocols"
        shared, own = read_settings(folder / "defaults.yaml"), read_settings(folder / f"{protocol}.yaml")
        missing = [key for key in (*SETTINGS, "demo") if key not in shared]
        if missing:
            raise UserError(
                f"{folder / 'defaults.yaml'}: expected all keys, got none for {', '.join(missing)}. Add them."
            )
        settings = {key: own.get(key, shared[key]) for key in SETTINGS}
        for key in ("configs", "prompts"):  # method by method
            settings[key] = shared[key] | own.get(key, {})
        if demo:
            changes = shared["demo"] | own.get("demo", {})
            settings |= {"configs": dict.fromkeys(self.trainers(), changes.pop("config", None)), "prompts": {}}
            settings |= changes
        return settings

    def load(self, package: str) -> ModuleType:
        """Import `datasets` or `trainers` (or a module in them) of this checkout, as its train.py would.

        Neither is installed, so a library of the same name may be: the checkout goes before it.

        Raises:
            UserError: a package of that name from elsewhere was imported, already before or instead of a missing one.
        """
        root = str(self.root)
        if sys.path[:1] != [root]:
            sys.path.insert(0, root)
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name not in (package, package.partition(".")[0]):
                raise  # the package exists, but something it imports does not
            raise UserError(f"{self.root}: expected the package {package} in this checkout, got none.") from None
        found = Path(module.__file__ or "").resolve()
        if not found.is_relative_to(self.root):
            raise UserError(f"{package}: expected the one in the checkout {self.root}, got {found}, which hides it.")
        return module

    def shown(self, path: Path) -> str:
        """Shorten a path for train.py, called from the checkout: relative if it is inside."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)


def plain(value):
    """Convert a setting to the form that results.json holds."""
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def read_settings(path: Path) -> dict:
    """Read a file of configs/protocols/. Raise UserError when a key in it is unknown."""
    settings = read_yaml(path) or {}
    if not isinstance(settings, dict) or not isinstance(settings.get("demo", {}), dict):
        raise UserError(f"{path}: expected keys and values, also under `demo`, got something else.")
    refuse_unknown(f"key in {path}:", [*settings], [*SETTINGS, "demo"])
    refuse_unknown(f"key in {path}: demo:", [*settings.get("demo", {})], [*SETTINGS, "config"])
    return settings


def refuse_unknown(kind: str, names: list[str], known: list[str]) -> None:
    """Raise UserError for the first of `names` that is not `known`, with the nearest and the whole list."""
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"unknown {kind} {name!r}.{hint} Expected one of: {', '.join(known) or 'none'}.")
