"""What the tests of Slurm and of Ray share: commands, and what they leave."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPARISON = ["base2new", "--trainers", "CoOp", "RPO", "--datasets", "digits", "--seeds", "1", "2", "--shots", "2"]
LONGER = ["base2new", "--trainers", "CoOp", "--datasets", "digits", "--seeds", "1", "--shots", "16"]


def start(*words, output, **environment):
    """Start `dassl WORDS --output OUTPUT`."""
    command = [sys.executable, "-m", "promptlearn.cli", *words, "--output", str(output)]
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | own | environment, **pipes)


def finish(process, status=0):
    """Return its stdout and stderr, once it has ended with this status."""
    out, err = process.communicate(timeout=500)
    assert process.returncode == status, err
    return out, err


def left_by(output):
    """Return everything that runs leave, except times, paths, and what the place decides."""
    found = {}
    for folder in (path.parent for path in output.rglob("results.json")):
        result = json.loads((folder / "results.json").read_text())
        for key in ("seconds", "peak_memory_mib", "config", "model_dir", "changed_on_resume"):
            del result[key]
        models = {path.name: path.read_bytes() for path in folder.rglob("model.pth.tar*")}
        found[str(folder.relative_to(output))] = result, models, (folder / "predictions.csv").read_bytes()
    return found


def wait_for(output, name, seconds=200):
    """Wait until a run has written a file of this name."""
    end = time.monotonic() + seconds
    while not list(output.rglob(name)):
        assert time.monotonic() < end
        time.sleep(0.1)
