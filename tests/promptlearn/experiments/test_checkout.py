import sys
from pathlib import Path

import pytest

from basics import UserError
from promptlearn.experiments import Checkout
from tests.fake_checkout import FakeCheckout

ROOT = Path(__file__).parents[3]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    FakeCheckout(tmp_path)
    yield tmp_path
    sys.modules.pop("things_of_a_checkout", None)


def package(root, name, text=""):
    (root / name).mkdir()
    (root / name / "__init__.py").write_text(text)


def test_the_checkouts_package_goes_before_an_installed_one(root):
    package(root, "things_of_a_checkout", "WORD = 'the checkout'")
    package(root / "configs", "things_of_a_checkout", "WORD = 'installed'")
    sys.path.insert(0, str(root / "configs"))
    assert Checkout(root).load("things_of_a_checkout").WORD == "the checkout"


def test_a_missing_package_is_refused(root):
    with pytest.raises(UserError, match="expected the package things_nowhere"):
        Checkout(root).load("things_nowhere")


def test_a_package_from_elsewhere_is_refused(root):
    with pytest.raises(UserError, match="json: expected the one in the checkout .*, got"):
        Checkout(root).load("json")


def test_a_package_with_a_missing_import_names_it(root):
    package(root, "things_of_a_checkout", "import a_library_that_is_nowhere")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_nowhere"):
        Checkout(root).load("things_of_a_checkout")


def test_loading_a_package_leaves_the_path_as_it_was(root):
    package(root, "things_of_a_checkout")
    before = [*sys.path]
    Checkout(root).load("things_of_a_checkout")
    assert sys.path == before


def test_outside_a_checkout_runs_start_here_and_own_configs_are_added(tmp_path, monkeypatch):
    (tmp_path / "configs" / "trainers" / "Mine").mkdir(parents=True)
    (tmp_path / "configs" / "trainers" / "Mine" / "tiny.yaml").write_text("")
    (tmp_path / "configs" / "datasets").mkdir()
    (tmp_path / "configs" / "datasets" / "digits.yaml").write_text("DATASET:\n  NAME: MyDigits\n")
    monkeypatch.chdir(tmp_path)
    checkout = Checkout()
    assert checkout.root == ROOT and checkout.folder == tmp_path
    assert {"Mine", "RPO"} <= {*checkout.trainers()} and checkout.configs("Mine") == ["tiny"]
    assert checkout.registered_name("digits") == "MyDigits" and checkout.registered_name("letters") == "Letters"
    assert checkout.settings("base2new", demo=True)["configs"]["Mine"] == "tiny"
    with pytest.raises(UserError, match="datasets/none.yaml: expected a file in .*, got none"):
        checkout.registered_name("none")
