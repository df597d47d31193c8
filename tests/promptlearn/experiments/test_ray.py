"""Comparisons on Ray clusters of this machine."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.cluster_runs import COMPARISON, LONGER, ROOT, finish, left_by, start, wait_for

pytest.importorskip("ray", reason="need ray (pip install 'promptlearn-clip[ray]')")
pytestmark = pytest.mark.slow
RAY = ["env", "RAY_USAGE_STATS_ENABLED=0", "RAY_DISABLE_IMPORT_WARNING=1"]


@pytest.fixture
def cluster(monkeypatch):
    """A cluster whose head runs nothing; tests add nodes."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Return what local runs leave, and their tables: by the words of the command."""
    made = {}

    def run(words):
        key = " ".join(words)
        if key not in made:
            output = tmp_path_factory.mktemp("local")
            table, _ = finish(start(*words, output=output))
            made[key] = table, left_by(output)
        return made[key]

    return run


def test_a_comparison_on_two_nodes_equals_the_local_one(cluster, local, tmp_path):
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    table, _ = finish(start(*COMPARISON, "--on", "ray", "--address", cluster.address, output=tmp_path))
    assert (table, left_by(tmp_path)) == local(COMPARISON)


def test_a_run_whose_node_is_lost_is_continued_on_another(cluster, local, tmp_path):
    node = cluster.add_node(num_cpus=1)
    process = start(*LONGER, "--on", "ray", "--address", cluster.address, output=tmp_path)
    wait_for(tmp_path, "metrics.csv")
    cluster.add_node(num_cpus=1)
    cluster.remove_node(node, allow_graceful=False)
    table, _ = finish(process)
    assert (table, left_by(tmp_path)) == local(LONGER)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="need root, to hide a folder from a node"
)
def test_results_come_back_from_a_node_without_the_shared_folder(cluster, local, tmp_path):
    hidden = tmp_path / "runs"
    hidden.mkdir()
    node = f"mount -t tmpfs tmpfs {hidden} && exec ray start --address={cluster.address} --num-cpus=1 --block"
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", node],
        env=os.environ | {"PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        table, _ = finish(start(*LONGER, "--on", "ray", "--address", cluster.address, output=hidden))
    finally:
        process.terminate()
        process.wait()
    assert (table, left_by(hidden)) == local(LONGER)


def test_a_failed_run_is_reported_as_locally(tmp_path):
    words = [*LONGER, "--trainers", "RPO", "--vary", "TRAINER.RPO.K", "100"]
    errors = []
    for number, place in enumerate(([], ["--on", "ray"])):
        _, err = finish(start(*words, *place, output=tmp_path / str(number)), status=2)
        lines = err.replace(str(tmp_path / str(number)), "OUTPUT").splitlines()
        errors.append([line for line in lines if " of 4: " not in line])  # done runs, in any order
    assert errors[0] == errors[1] and any(line.startswith("FAILED: RPO K=100 on digits") for line in errors[0])


def test_no_cluster_at_the_address_is_one_line(tmp_path):
    _, err = finish(start(*LONGER, "--on", "ray", "--address", "localhost:9", output=tmp_path), status=2)
    assert err.splitlines()[-1].startswith("error: --address: expected a Ray cluster at localhost:9, got none")
