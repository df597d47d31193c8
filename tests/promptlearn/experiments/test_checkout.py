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


def test_a_package_of_the_checkout_is_loaded_even_where_another_of_its_name_is_installed(root):
    package(root, "things_of_a_checkout", "WORD = 'the checkout'")
    package(root / "configs", "things_of_a_checkout", "WORD = 'installed'")
    sys.path.insert(0, str(root / "configs"))
    assert Checkout(root).load("things_of_a_checkout").WORD == "the checkout"


def test_a_package_that_is_not_there_is_refused(root):
    with pytest.raises(UserError, match="expected the package things_nowhere"):
        Checkout(root).load("things_nowhere")


def test_a_package_of_somewhere_else_is_not_taken_for_the_checkouts(root):
    with pytest.raises(UserError, match="json: expected the one in the checkout .*, got"):
        Checkout(root).load("json")


def test_what_a_package_lacks_is_named(root):
    package(root, "things_of_a_checkout", "import a_library_that_is_nowhere")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_nowhere"):
        Checkout(root).load("things_of_a_checkout")
