"""Methods, datasets, and configs that users add: in the current folder, or in packages that they install.

Such a package names its modules as entry points of the groups promptlearn.trainers, promptlearn.datasets, and
promptlearn.configs (a module in a folder that is laid out like configs/).

A folder trainers/ or datasets/ of the user is imported as `basics.foreign` says: its files replace none of ours, and a
clip/ next to it serves them alone. So does the clip/ of a method folder, trainers/<any>/ with clip/ and trainer files.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from basics.foreign import ForeignFolder, without_private_names

CONFIGS = "configs"
PACKAGES = ("trainers", "datasets")


def is_repository(folder: Path) -> bool:
    """Return whether a folder is a checkout of this project, or a repository of the CoOp family with its train.py."""
    return (folder / "train.py").is_file() and (folder / CONFIGS).is_dir()


def own_folder(package: str) -> Path | None:
    """Find the folder `package` (trainers or datasets) of the current folder; None if it has no method or dataset.

    A folder of that name may also hold images, or scripts of other projects, so one of its files must use the registry.
    Repositories with a train.py of their own have their own way to find their files.
    """
    folder = Path.cwd() / package
    if is_repository(folder.parent) or not folder.is_dir():
        return None
    files = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
    files += [file for each in method_folders(folder) for file in _trainer_files(each)]
    return folder if any(_registers(file, package) for file in files) else None


def _registers(file: Path, package: str) -> bool:
    return f"{package[:-1].upper()}_REGISTRY".encode() in file.read_bytes()


def method_folders(folder: Path) -> list[Path]:
    """List the folders in trainers/ that bring a package `clip` of their own."""
    return sorted(file.parents[1] for file in folder.glob("*/clip/__init__.py"))


def _trainer_files(method_folder: Path) -> list[Path]:
    """List the files of a method folder that register a trainer. They lie in it, or in a folder trainers/ in it."""
    files = sorted([*method_folder.glob("*.py"), *method_folder.glob("trainers/*.py")])
    return [file for file in files if _registers(file, "trainers")]


def has_additions(package: str) -> bool:
    """Return whether there are methods or datasets besides those of the package itself."""
    return bool(own_folder(package) or entry_points(group=f"promptlearn.{package}"))


def import_all(package: str, path: list[str]) -> list[ModuleType]:
    """Import the modules of `package`, those of installed packages, and those of the current folder, in this order.

    A module that cannot be imported is reported and skipped: a broken file must not disable the others.

    Args:
        path: the package's `__path__`.
    """
    steps: dict[str, Callable[[], ModuleType]] = {}
    for folder in map(Path, path):
        own_clip = method_folders(folder)
        for name in _module_names(folder):
            if folder / name not in own_clip:
                steps[f"{package}/{name}.py"] = partial(importlib.import_module, f"{package}.{name}")
        steps |= _steps_of_method_folders(folder)
    for entry in entry_points(group=f"promptlearn.{package}"):
        steps[entry.module] = partial(importlib.import_module, entry.module)
    own = own_folder(package)
    if own and not any(own.samefile(folder) for folder in path):
        foreign = _current_folder(own, package)
        for name in _module_names(own):
            if own / name not in method_folders(own):
                steps[str(own / f"{name}.py")] = partial(foreign.import_file, own / name)
        steps |= _steps_of_method_folders(own)
    modules = []
    for file, step in steps.items():
        try:
            modules.append(step())
        except Exception as error:
            reason = without_private_names(f"{type(error).__name__}: {error}")
            print(f"warning: {file} is skipped: {reason}", file=sys.stderr)
    return modules


def _module_names(folder: Path) -> list[str]:
    return [module.name for module in pkgutil.iter_modules([str(folder)])]


def _current_folder(own: Path, package: str) -> ForeignFolder:
    """Return what the files of trainers/ or datasets/ of the current folder find there."""
    packages = {package: own} | {name: folder for name in PACKAGES if (folder := own_folder(name))}
    if (own.parent / "clip" / "__init__.py").is_file():
        packages["clip"] = own.parent / "clip"
    return ForeignFolder(own.parent, packages)


def _steps_of_method_folders(folder: Path) -> dict[str, Callable[[], ModuleType]]:
    steps: dict[str, Callable[[], ModuleType]] = {}
    for root in method_folders(folder):
        inner = root / "trainers"
        foreign = ForeignFolder(root, {"clip": root / "clip", "trainers": inner if inner.is_dir() else root})
        for file in _trainer_files(root):
            steps[str(file)] = partial(foreign.import_file, file)
    return steps


def config_folders(folder: Path, installed: Path) -> list[Path]:
    """List the folders with configs, in the order of the search.

    Args:
        folder: where the user works.
        installed: configs/ of this project.
    """
    folders = [folder / CONFIGS]
    for entry in entry_points(group=f"promptlearn.{CONFIGS}"):
        try:
            spec = importlib.util.find_spec(entry.module)
        except ImportError:
            spec = None
        if spec is None or not spec.submodule_search_locations:
            print(f"warning: {entry.module} is skipped: expected a package with configs, got none", file=sys.stderr)
        else:
            folders += map(Path, spec.submodule_search_locations)
    return list(dict.fromkeys([*folders, installed]))


def find_config(path: str, installed: Path) -> str:
    """Find a config file: `path` itself if it exists, or else that of an installed package or of this project."""
    parts = Path(path).parts
    if parts[:1] == (CONFIGS,) and not Path(path).exists():
        for folder in config_folders(Path.cwd(), installed):
            if folder.joinpath(*parts[1:]).is_file():
                return str(folder.joinpath(*parts[1:]))
    return path
