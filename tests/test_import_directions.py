"""Imports point one way between the packages."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("basics", "dassl", "clip", "trainers", "datasets", "promptlearn")
ABOVE = ("train", "scripts", "benchmarks", "tests")  # import anything, and are imported by no package
BELOW = {
    "trainers": ("basics", "dassl", "clip"),
    "promptlearn": ("basics", "dassl", "clip", "trainers", "datasets"),
}
SHARED_BY_TRAINERS = tuple(
    f"trainers.{name}"
    for name in (
        *("attention_maps", "base", "cache", "context", "features", "finetuning", "independent", "inference"),
        *("prompted", "search", "texts", "tokens", "work"),
    )
)


def imports(path: Path, module: str) -> set[str]:
    """List full names of all modules that a file imports anywhere, and of the names from them."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            names.update(f"{source}.{alias.name}" for alias in node.names)
    return names


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def allowed(module: str, name: str, is_package: bool) -> bool:
    """Return whether `module` may import `name`, one of our modules or something in it."""
    package = module.split(".")[0]
    if within(name, *ABOVE):
        return False
    if within(name, package, "basics") and package != "trainers":
        return True
    if package == "datasets":
        return within(name, "dassl.data", "dassl.utils")
    if package == "trainers" and within(name, "trainers"):  # the package itself gathers the methods; none knows another
        return (is_package and module == "trainers") or within(name, module, *SHARED_BY_TRAINERS)
    return within(name, *BELOW.get(package, ()))


def violations(root: Path) -> list[str]:
    """List `module imports name` for each import that points the wrong way."""
    found = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            relative = path.relative_to(root)
            is_package = path.name == "__init__.py"
            module = ".".join((relative.parent if is_package else relative.with_suffix("")).parts)
            for name in sorted(imports(path, module)):
                if within(name, *PACKAGES, *ABOVE) and not allowed(module, name, is_package):
                    found.append(f"{module} imports {name}")
    return found


def test_imports_point_one_way():
    assert violations(ROOT) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_checked(package):
    assert list((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    "path, line, found",
    [
        ("dassl/engine/trainer.py", "import clip", "dassl.engine.trainer imports clip"),
        ("dassl/engine/trainer.py", "from clip import clip", "dassl.engine.trainer imports clip.clip"),
        ("dassl/data/a.py", "def f():\n    from datasets import pets", "dassl.data.a imports datasets.pets"),
        ("dassl/engine/a.py", "from promptlearn.cli import main", "dassl.engine.a imports promptlearn.cli.main"),
        ("basics/a.py", "from dassl.utils import Registry", "basics.a imports dassl.utils.Registry"),
        ("clip/towers.py", "from dassl.utils import Registry", "clip.towers imports dassl.utils.Registry"),
        ("clip/towers.py", "import tests.plain_clip", "clip.towers imports tests.plain_clip"),
        ("datasets/pets.py", "from dassl.engine import TrainerX", "datasets.pets imports dassl.engine.TrainerX"),
        ("datasets/pets.py", "import clip.weights", "datasets.pets imports clip.weights"),
        ("trainers/rpo.py", "from .coop import CoOp", "trainers.rpo imports trainers.coop.CoOp"),
        ("trainers/rpo.py", "from trainers import coop", "trainers.rpo imports trainers.coop"),
        ("trainers/rpo.py", "from datasets import pets", "trainers.rpo imports datasets.pets"),
        ("trainers/rpo.py", "import train", "trainers.rpo imports train"),
    ],
)
def test_a_planted_violation_is_detected(tmp_path, path, line, found):
    plant(tmp_path, path, line)
    assert violations(tmp_path) == [found]


@pytest.mark.parametrize(
    "path, line",
    [
        ("trainers/__init__.py", "from trainers import coop, rpo"),
        ("trainers/rpo.py", "from .base import Shared\nfrom clip import CLIP\nfrom dassl.engine import TrainerX"),
        ("datasets/pets.py", "from dassl.data.datasets import Datum\nfrom .demo import world"),
        ("promptlearn/cli/main.py", "from promptlearn.experiments import plan\nfrom basics import UserError"),
        ("clip/towers.py", "import torch\nfrom .attention import attend\nimport trainersomething"),
    ],
)
def test_allowed_imports_are_not_violations(tmp_path, path, line):
    plant(tmp_path, path, line)
    assert violations(tmp_path) == []


def plant(root, path, line):
    (root / path).parent.mkdir(parents=True)
    (root / path).write_text(line + "\n")
