"""Methods, datasets, and configs of the user are found in the current folder and in installed packages."""

import sys

import pytest

from basics.additions import config_folders, find_config, has_additions, import_all, own_folder

METHOD = "from dassl.engine import TRAINER_REGISTRY\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder. Imports of the test are forgotten."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path / "here"
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def package(here):
    """A package `shipped_trainers` with the modules a and b, which is to have additions; returns its `__path__`."""
    for name in ("__init__", "a", "b"):
        write(here.parent / "shipped_trainers" / f"{name}.py", "WORD = 'shipped'\n")
    sys.path.insert(0, str(here.parent))
    return __import__("shipped_trainers").__path__


def install(here, entry_points):
    """Make a package `extra_package` with the module c and the folder configs importable, with its entry points."""
    folder = here.parent / "installed"
    write(folder / "extra_package" / "__init__.py")
    write(folder / "extra_package" / "c.py", "WORD = 'installed'\n")
    write(folder / "extra_package" / "configs" / "datasets" / "theirs.yaml")
    write(folder / "extra_package-1.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: extra_package\nVersion: 1\n")
    write(folder / "extra_package-1.dist-info" / "entry_points.txt", entry_points)
    sys.path.insert(0, str(folder))
    return folder / "extra_package"


def words(modules):
    return {module.__name__.rpartition(".")[2]: module.WORD for module in modules}


def test_a_file_of_the_current_folder_is_added_or_replaces_one(here, package):
    write(here / "shipped_trainers" / "b.py", "SHIPPED_TRAINER_REGISTRY = {}\nWORD = 'mine'\n")
    write(here / "shipped_trainers" / "d.py", "from shipped_trainers.a import WORD\n")
    assert words(import_all("shipped_trainers", package)) == {"a": "shipped", "b": "mine", "d": "shipped"}


def test_a_module_of_an_entry_point_is_added(here, package):
    install(here, "[promptlearn.shipped_trainers]\nany = extra_package.c\n")
    assert has_additions("shipped_trainers") and not has_additions("trainers")
    assert words(import_all("shipped_trainers", package)) == {"a": "shipped", "b": "shipped", "c": "installed"}


def test_what_cannot_be_imported_is_reported_and_the_others_are_there(here, package, capsys):
    install(here, "[promptlearn.shipped_trainers]\nany = extra_package.missing\n")
    write(here / "shipped_trainers" / "d.py", "SHIPPED_TRAINER_REGISTRY\n")
    assert words(import_all("shipped_trainers", package)) == {"a": "shipped", "b": "shipped"}
    warnings = capsys.readouterr().err
    assert "shipped_trainers/d.py is skipped: NameError" in warnings
    assert "extra_package.missing is skipped: ModuleNotFoundError" in warnings


def test_a_folder_of_that_name_with_other_content_is_left_alone(here):
    assert own_folder("datasets") is None
    write(here / "datasets" / "download.py", "raise SystemExit('an unrelated script')\n")
    assert own_folder("datasets") is None
    write(here / "datasets" / "mine" / "__init__.py", "DATASET_REGISTRY\n")
    assert own_folder("datasets") == here / "datasets"


def test_a_repository_with_its_own_train_py_has_no_additions(here):
    write(here / "trainers" / "mine.py", METHOD)
    write(here / "train.py")
    assert own_folder("trainers") == here / "trainers"
    write(here / "configs" / "trainers" / "Mine" / "tiny.yaml")
    assert own_folder("trainers") is None


def test_configs_are_searched_here_then_in_packages_then_in_ours(here):
    package = install(here, "[promptlearn.configs]\nany = extra_package.configs\n")
    ours = here.parent / "ours"
    assert config_folders(here, ours) == [here / "configs", package / "configs", ours]
    for folder in (ours, here / "configs"):
        write(folder / "datasets" / "mine.yaml")
    write(ours / "datasets" / "theirs.yaml")
    assert find_config("configs/datasets/mine.yaml", ours) == "configs/datasets/mine.yaml"
    assert find_config("configs/datasets/theirs.yaml", ours) == str(package / "configs" / "datasets" / "theirs.yaml")
    assert find_config("configs/datasets/nowhere.yaml", ours) == "configs/datasets/nowhere.yaml"


def test_a_package_without_its_configs_is_reported_and_skipped(here, capsys):
    install(here, "[promptlearn.configs]\na = extra_package.c\nb = no_such_package.configs\n")
    assert config_folders(here, here / "ours") == [here / "configs", here / "ours"]
    assert capsys.readouterr().err.count("is skipped: expected a package with configs, got none") == 2


def test_in_a_checkout_its_configs_come_first(here):
    package = install(here, "[promptlearn.configs]\nany = extra_package.configs\n")
    assert config_folders(here, here / "configs") == [here / "configs", package / "configs"]


def test_a_file_of_the_folder_finds_its_neighbors_first_and_then_ours(here, package):
    write(here / "shipped_trainers" / "b.py", "SHIPPED_TRAINER_REGISTRY = {}\nWORD = 'mine'\n")
    write(here / "shipped_trainers" / "c.py", "from . import a, b\nWORD = a.WORD + b.WORD\n")
    write(
        here / "shipped_trainers" / "d.py",
        "import shipped_trainers.b as b\nfrom shipped_trainers import a\nWORD = b.WORD\n",
    )
    write(
        here / "shipped_trainers" / "e.py",
        "def later():\n    from .b import WORD\n\n    return WORD\n\n\nWORD = later()\n",
    )
    found = words(import_all("shipped_trainers", package))
    assert [found[name] for name in "cde"] == ["shippedmine", "mine", "mine"]
    assert sys.modules["shipped_trainers.b"].WORD == "shipped"


def test_a_missing_import_is_reported_under_the_name_in_the_file(here, package, capsys):
    write(here / "shipped_trainers" / "b.py", "SHIPPED_TRAINER_REGISTRY = {}\nfrom . import missing\n")
    write(here / "shipped_trainers" / "c.py", "from .missing import this\n")
    import_all("shipped_trainers", package)
    warnings = capsys.readouterr().err
    assert "b.py is skipped: ImportError: cannot import name 'missing' from 'shipped_trainers'" in warnings
    assert "c.py is skipped: ModuleNotFoundError: No module named 'shipped_trainers.missing'" in warnings


def test_a_file_and_a_clip_package_may_be_links(here, package):
    write(here.parent / "elsewhere" / "clip" / "__init__.py", "WORD = 'linked'\n")
    write(here.parent / "elsewhere" / "b.py", "SHIPPED_TRAINER_REGISTRY = {}\nfrom clip import WORD\n")
    (here / "shipped_trainers").mkdir()
    (here / "shipped_trainers" / "b.py").symlink_to(here.parent / "elsewhere" / "b.py")
    (here / "clip").symlink_to(here.parent / "elsewhere" / "clip")
    assert words(import_all("shipped_trainers", package)) == {"a": "shipped", "b": "linked"}
