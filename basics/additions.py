"""Methods, datasets, and configs that users add: in the current folder, or in packages that they install.

Such a package names its modules as entry points of the groups promptlearn.trainers, promptlearn.datasets, and
promptlearn.configs (a module in a folder that is laid out like configs/).
"""

import importlib
import importlib.util
import pkgutil
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

CONFIGS = "configs"


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
    registry = f"{package[:-1].upper()}_REGISTRY".encode()
    files = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
    return folder if any(registry in file.read_bytes() for file in files) else None


def has_additions(package: str) -> bool:
    """Return whether there are methods or datasets besides those of the package itself."""
    return bool(own_folder(package) or entry_points(group=f"promptlearn.{package}"))


def import_all(package: str, path: list[str]) -> list[ModuleType]:
    """Import the modules of `package`, those of the current folder, and those of installed packages.

    A module that cannot be imported is reported and skipped: a broken file must not disable the others.

    Args:
        path: the package's `__path__`. The current folder's is put first, so its files replace those of equal names.
    """
    own = own_folder(package)
    if own and not any(own.samefile(folder) for folder in path):
        path.insert(0, str(own))
    files = {f"{package}.{module.name}": f"{package}/{module.name}.py" for module in pkgutil.iter_modules(path)}
    files |= {entry.module: entry.module for entry in entry_points(group=f"promptlearn.{package}")}
    modules = []
    for name, file in files.items():
        try:
            modules.append(importlib.import_module(name))
        except Exception as error:
            print(f"warning: {file} is skipped: {type(error).__name__}: {error}", file=sys.stderr)
    return modules


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
