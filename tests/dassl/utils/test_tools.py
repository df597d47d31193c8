"""Small helpers."""

import time

import pytest

import dassl.utils
import dassl.utils.tools
from dassl.utils import (
    check_availability,
    check_isfile,
    collect_env_info,
    in_threads,
    listdir_nohidden,
    tolist_if_not,
)


def test_all_names_that_the_family_imports_exist():
    family = """mkdir_if_missing listdir_nohidden check_isfile read_json write_json set_random_seed setup_logger
        collect_env_info load_checkpoint save_checkpoint resume_from_checkpoint load_pretrained_weights count_num_param
        open_all_layers open_specified_layers init_network_weights read_image Registry AverageMeter MetricMeter
        check_availability tolist_if_not get_most_similar_str_to_a_from_b"""
    assert all(hasattr(dassl.utils, name) for name in family.split())
    assert dassl.utils.tools.mkdir_if_missing is dassl.utils.mkdir_if_missing


def test_hidden_names_are_skipped(tmp_path):
    for name in ("b", ".hidden", "a"):
        (tmp_path / name).touch()
    assert listdir_nohidden(tmp_path, sort=True) == ["a", "b"]


def test_a_missing_file_gives_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="No file found at"):
        assert not check_isfile(tmp_path / "x")
    assert check_isfile(__file__)


def test_an_unavailable_choice_names_the_nearest():
    check_availability("sgd", ["adam", "sgd"])
    with pytest.raises(ValueError, match='Did you mean "sgd"'):
        check_availability("SDG", ["adam", "sgd"])


def test_anything_but_a_list_is_wrapped_in_one():
    assert tolist_if_not(["a"]) == ["a"]
    assert tolist_if_not("a") == ["a"]


def test_the_environment_is_reported():
    assert {"Python:", "torch:"} <= set(collect_env_info().split())


def test_thread_results_keep_their_order_and_a_stop_cancels_the_rest():
    assert list(in_threads(lambda n: n * n, range(100))) == [n * n for n in range(100)]
    begun = []

    def work(n):
        begun.append(n)
        time.sleep(0.01)
        if n == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_threads(work, range(10_000)))
    assert len(begun) < 1000
