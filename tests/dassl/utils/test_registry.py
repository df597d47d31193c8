"""Registries."""

import pytest

from basics import UserError
from dassl.utils import Registry, UnknownName


def filled():
    registry = Registry("TRAINER")
    for name in ("CoOp", "CoCoOp", "RPO"):
        registry.register(type(name, (), {}))
    return registry


def test_a_class_is_found_by_its_name():
    registry = Registry("TRAINER")

    @registry.register()
    class RPO:
        pass

    assert registry.get("RPO") is RPO
    assert registry.registered_names() == ["RPO"]


def test_an_unknown_name_lists_all_with_the_nearest_first():
    with pytest.raises(UnknownName, match=r'unknown trainer "rpoo"\. Did you mean "RPO"\? Registered: RPO, CoCoOp'):
        filled().get("rpoo")


def test_an_unknown_name_is_a_user_error_and_a_value_error():
    assert issubclass(UnknownName, UserError) and issubclass(UnknownName, ValueError)


def test_an_empty_registry_is_reported():
    with pytest.raises(UnknownName, match="no data is registered"):
        Registry("DATA").get("x")


def test_a_name_is_registered_once_unless_forced():
    registry = filled()
    other = type("RPO", (), {})
    with pytest.raises(KeyError, match='An object named "RPO" was already registered in "TRAINER" registry'):
        registry.register(other)
    registry.register(other, force=True)
    assert registry.get("RPO") is other


OURS, FIRST, SECOND = (type("CoOp", (), {"__module__": module}) for module in ("ours", "first", "second"))


@pytest.mark.parametrize("order", [(OURS, FIRST), (FIRST, OURS)])
def test_a_users_class_takes_the_name_of_a_built_in_one_in_either_order(order):
    registry = Registry("TRAINER", lambda obj: obj.__module__ == "ours")
    for each in order:
        registry.register(each)
    assert registry.get("CoOp") is FIRST and registry.replaced("CoOp") is OURS


def test_two_files_that_register_one_name_are_named():
    registry = Registry("TRAINER", lambda obj: obj.__module__ == "ours")
    for each in (OURS, FIRST):
        registry.register(each)
    with pytest.raises(KeyError, match="by first, and now by second"):
        registry.register(SECOND)
    with pytest.raises(UserError, match="trainer CoOp: expected one file that registers it, got two: first and second"):
        registry.get("CoOp")
