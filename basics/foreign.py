"""Files of another repository, which find that repository's own packages where ours have the same names.

`sys.modules` holds one package of a name. So the files of a folder are imported under a private name, and their import
statements, wherever they run, look for `clip`, `trainers`, and `datasets` in that folder first, and then among ours.
No other file sees what that folder brings.
"""

import builtins
import importlib
import importlib.util
import re
import sys
import zlib
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

PREFIX = "foreign_"  # of the private names; a number for each folder follows


def is_foreign(module: str) -> bool:
    """Return whether a module of this name was imported from a foreign folder."""
    return module.startswith(PREFIX)


def without_private_names(text: str) -> str:
    """Return a message with the names that import statements have."""
    return re.sub(rf"{PREFIX}[0-9a-f]{{8}}\.", "", text)


class ForeignFolder:
    """The packages and files of a folder, importable for its own files only.

    Args:
        root: the folder.
        packages: name in import statements -> its folder, `root` or one in it.
    """

    def __init__(self, root: Path, packages: dict[str, Path]):
        self.root = root.absolute()
        self.private = f"{PREFIX}{zlib.crc32(str(self.root).encode()):08x}"
        self.packages = {name: self._private_name(folder.absolute()) for name, folder in packages.items()}
        module = ModuleType(self.private)
        module.__path__ = [str(self.root)]
        sys.modules.setdefault(self.private, module)
        _FINDER.folders[self.private] = self
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)

    def import_file(self, file: Path) -> ModuleType:
        """Import a file of the folder, or a package in it."""
        return importlib.import_module(self._private_name(file.absolute().with_suffix("")))

    def _private_name(self, path: Path) -> str:
        return ".".join((self.private, *path.relative_to(self.root).parts))

    def import_name(
        self,
        name: str,
        globals: dict | None = None,
        locals: object = None,
        fromlist: Sequence[str] | None = None,
        level: int = 0,
    ) -> ModuleType:
        """Import as `builtins.__import__` does, for a statement in a file of the folder."""
        public = name if not level else self._public_name(name, globals or {}, level)
        top, _, rest = public.partition(".")
        own = ".".join(filter(None, (self.packages.get(top), rest)))
        if top not in self.packages or not _exists(own):
            return builtins.__import__(public, globals, None, tuple(fromlist or ()), 0)
        module = builtins.__import__(own, None, None, tuple(fromlist or ("*",)), 0)
        for wanted in fromlist or ():
            if wanted != "*" and not hasattr(module, wanted) and _exists(f"{public}.{wanted}"):
                setattr(module, wanted, importlib.import_module(f"{public}.{wanted}"))
        return module if fromlist else sys.modules[self.packages[top]]

    def _public_name(self, name: str, globals: dict, level: int) -> str:
        """Return the name in import statements of what a relative import names."""
        full = importlib.util.resolve_name("." * level + name, globals["__package__"])
        inner_first = sorted(self.packages.items(), key=lambda item: -len(item[1]))
        for public, private in inner_first:
            if full == private or full.startswith(f"{private}."):
                return public + full.removeprefix(private)
        return full


class _Finder(MetaPathFinder):
    """Finds the modules with private names."""

    def __init__(self) -> None:
        self.folders: dict[str, ForeignFolder] = {}  # by private name

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        folder = self.folders.get(name.partition(".")[0])
        spec = PathFinder.find_spec(name, path) if folder else None
        if folder and spec and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(folder, name, spec.loader.path)
        return spec


_FINDER = _Finder()


class _Loader(SourceFileLoader):
    """Gives a module the import statement of its folder."""

    def __init__(self, folder: ForeignFolder, name: str, path: str):
        super().__init__(name, path)
        self.folder = folder

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = vars(builtins) | {"__import__": self.folder.import_name}
        super().exec_module(module)


def _exists(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a package that it would be in does not exist
        return False
