"""Help, refusals, and commands that only read results do not import torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.made_up_runs import MadeUpRuns

ROOT = Path(__file__).parents[3]
SLOW = ("torch", "torchvision", "scipy", "sklearn", "matplotlib", "pandas", "open_clip", "starlette")
COMMANDS = {
    "dassl --help": 0,
    "dassl --version": 0,
    "dassl base2new --help": 0,
    "dassl few_shot --help": 0,
    "dassl data --help": 0,
    "dassl data list": 0,
    "dassl data prepare --help": 0,
    "dassl data prepare oxford_pet --root .": 2,
    "dassl results --help": 0,
    "dassl results RUNS": 0,
    "dassl report --help": 0,
    "dassl figures --help": 0,
    "dassl figures . --width wide": 2,
    "dassl tune --help": 0,
    "dassl fit --help": 0,
    "dassl fit . --method PRO": 2,
    "dassl predict --help": 0,
    "dassl export --help": 0,
    "dassl serve --help": 0,
    "dassl doctor --help": 0,
    "dassl completion bash": 0,
    "dassl completion words dassl train --trainer R": 0,
    "dassl base2nwe": 2,
    "dassl base2new --trainrs RPO": 2,
    "dassl base2new --trainers PRO": 2,
    "dassl base2new --dry-run --output EMPTY": 0,
    "dassl train --help": 0,
    "dassl train --trainr RPO": 2,
    "train.py --help": 0,
    "train.py --trainer RPO TRAINER.RPO.KK 4": 2,
    "train.py --trainer PRO": 2,
    "train.py --trainer RPO DATASET.NAME Digit": 2,
    "train.py --trainer RPO --config-file configs/none.yaml": 2,
}
PROGRAM = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    if sys.argv[0] == "dassl":
        from promptlearn.cli import main
        sys.exit(main())
    sys.path[0] = "."
    runpy.run_path("train.py", run_name="__main__")
finally:
    print("IMPORTED", [name for name in %r if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    MadeUpRuns(folder).base2new()
    return folder


@pytest.mark.parametrize("command, status", COMMANDS.items(), ids=COMMANDS)
def test_the_command_runs_without_slow_imports(command, status, runs, tmp_path):
    words = command.replace("RUNS", str(runs)).replace("EMPTY", str(tmp_path)).split()
    done = subprocess.run([sys.executable, "-c", PROGRAM % (SLOW,), *words], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (status, "IMPORTED []"), done.stderr
