"""Comparisons through Slurm, on two nodes of this machine."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm_cluster import Cluster, missing

pytest.importorskip("submitit", reason="need submitit (pip install 'promptlearn-clip[slurm]')")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

ROOT = Path(__file__).parents[3]
COMPARISON = ["base2new", "--trainers", "CoOp", "RPO", "--datasets", "digits", "--seeds", "1", "2", "--shots", "2"]
LONGER = ["base2new", "--trainers", "CoOp", "--datasets", "digits", "--seeds", "1", "--shots", "16"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.close()


@pytest.fixture
def dassl(cluster, tmp_path):
    """Start `dassl WORDS --output NAME` and return its process."""

    def start(*words, output="slurm"):
        command = [sys.executable, "-m", "promptlearn.cli", *words, "--output", str(tmp_path / output)]
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | cluster.environment | own, **pipes)

    return start


def finish(process, status=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    return out, err


def left_by(output):
    """Return everything that runs leave, except times, paths, and what the place decides."""
    found = {}
    for folder in (path.parent for path in output.rglob("results.json")):
        result = json.loads((folder / "results.json").read_text())
        for key in ("seconds", "peak_memory_mib", "config", "model_dir"):
            del result[key]
        models = {path.name: path.read_bytes() for path in folder.rglob("model.pth.tar*")}
        found[str(folder.relative_to(output))] = result, models, (folder / "predictions.csv").read_bytes()
    return found


def wait_for(output, name, seconds=120):
    """Wait until a run has written a file of this name."""
    end = time.monotonic() + seconds
    while not list(output.rglob(name)):
        assert time.monotonic() < end
        time.sleep(0.1)


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
    assert any("Resuming" in log for log in logs)
    assert left_by(tmp_path / "slurm") == left_by(tmp_path / "local")


def test_the_same_command_collects_what_was_detached(dassl, cluster, tmp_path):
    _, err = finish(dassl(*LONGER, "--on", "slurm", "--detach"))
    assert "3 runs submitted" in err or "4 runs submitted" in err
    before = cluster.call("squeue", "--noheader", "--format", "%i")
    _, err = finish(dassl(*LONGER, "--on", "slurm", "--detach"))
    assert "0 runs submitted" in err
    table, _ = finish(dassl(*LONGER, "--on", "slurm"))
    assert "CoOp" in table and "missing" not in table
    assert json.loads((tmp_path / "slurm/slurm/jobs.json").read_text()) == {}
    assert before


def test_slurm_words_explain_a_refusal(dassl, tmp_path):
    _, err = finish(dassl(*LONGER, "--on", "slurm", "--partition", "nowhere"), status=2)
    assert err.count("error: ") == 2 and "invalid partition specified: nowhere" in err and "Traceback" not in err
