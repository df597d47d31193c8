import sys

import pytest

from basics import UserError
from promptlearn.experiments import Checkout
from tests.fake_checkout import FakeCheckout


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
