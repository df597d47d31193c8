"""Comparisons through Slurm, on two nodes of this machine."""

import json
import time

import pytest

from tests.cluster_runs import COMPARISON, LONGER, finish, left_by, start, wait_for
from tests.slurm_cluster import Cluster, missing

pytest.importorskip("submitit", reason="need submitit (pip install 'promptlearn-clip[slurm]')")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.close()


@pytest.fixture
def dassl(cluster, tmp_path):
    """Start `dassl WORDS --output NAME` and return its process."""
    return lambda *words, output="slurm": start(*words, output=tmp_path / output, **cluster.environment)


def test_a_comparison_on_two_nodes_equals_the_local_one(dassl, cluster, tmp_path):
    table, _ = finish(dassl(*COMPARISON, output="local"))
    process = dassl(*COMPARISON, "--on", "slurm")
    nodes = set()
    while process.poll() is None:
        nodes |= set(cluster.call("squeue", "--noheader", "--states", "RUNNING", "--format", "%N").split())
        time.sleep(0.5)
    assert finish(process)[0] == table and nodes == {"n1", "n2"}
    assert left_by(tmp_path / "slurm") == left_by(tmp_path / "local")


def test_a_run_whose_node_is_lost_is_continued_on_another(dassl, cluster, tmp_path):
    table, _ = finish(dassl(*LONGER, output="local"))
    process = dassl(*LONGER, "--on", "slurm")
    wait_for(tmp_path / "slurm", "metrics.csv")
    node = cluster.call("squeue", "--noheader", "--states", "RUNNING", "--format", "%N").split()[0]
    cluster.kill_node(node)
    try:
        assert finish(process)[0] == table
    finally:
        cluster.start_node(node)
    assert left_by(tmp_path / "slurm") == left_by(tmp_path / "local")


def test_a_run_that_slurm_stops_saves_and_continues(dassl, cluster, tmp_path):
    finish(dassl(*LONGER, output="local"))
    process = dassl(*LONGER, "--on", "slurm")
    wait_for(tmp_path / "slurm", "metrics.csv")
    cluster.call("scancel", "--signal=USR2", "--state=RUNNING", "--name=promptlearn")  # as ahead of the time limit
    finish(process)
    logs = [path.read_text() for path in (tmp_path / "slurm/base2new").rglob("log.txt")]
    assert any("Resumed from" in log for log in logs)
    assert left_by(tmp_path / "slurm") == left_by(tmp_path / "local")


def test_the_same_command_collects_what_was_detached(dassl, cluster, tmp_path):
    _, err = finish(dassl(*LONGER, "--on", "slurm", "--detach"))
    assert "4 runs submitted to Slurm, 0 are there" in err
    before = set(cluster.call("squeue", "--noheader", "--format", "%F").split())
    assert len(before) == 2  # the training and the zero-shot tests; the test of the trained model
    _, err = finish(dassl(*LONGER, "--on", "slurm", "--detach"))
    assert "0 runs submitted" in err
    assert set(cluster.call("squeue", "--noheader", "--format", "%F").split()) <= before
    table, _ = finish(dassl(*LONGER, "--on", "slurm"))
    assert "CoOp" in table and "missing" not in table
    assert json.loads((tmp_path / "slurm/slurm/jobs.json").read_text()) == {}


def test_a_failed_run_names_its_log_and_its_error(dassl):
    words = [*LONGER, "--trainers", "RPO", "--vary", "TRAINER.RPO.K", "100", "--on", "slurm"]
    _, err = finish(dassl(*words), status=2)
    assert "FAILED: RPO K=100 on digits" in err and "error: TRAINER.RPO: expected" in err and "Traceback" not in err


def test_slurms_words_explain_a_refusal(dassl):
    _, err = finish(dassl(*LONGER, "--on", "slurm", "--partition", "nowhere"), status=2)
    assert [line for line in err.splitlines() if "error" in line] == [
        "error: --on slurm: expected jobs that Slurm accepts, got: invalid partition specified: nowhere; "
        "Batch job submission failed: Invalid partition name specified. Correct the options."
    ]
