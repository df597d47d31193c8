"""A file in trainers/ that cannot be imported does not affect the other methods."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_broken_file_is_reported_and_skipped(tmp_path):
    shutil.copytree(ROOT / "trainers", tmp_path / "trainers", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "trainers" / "mine.py").write_text("import no_such_package\n")
    shutil.copy(ROOT / "trainers" / "zsclip.py", tmp_path / "trainers" / "zsclip_again.py")
    code = "import trainers; from dassl.engine import TRAINER_REGISTRY as r; print(r.registered_names())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "'RPO'" in done.stdout and "'ZeroshotCLIP'" in done.stdout
    assert "trainers/mine.py is skipped: ModuleNotFoundError: No module named 'no_such_package'" in done.stderr
    assert "trainers/zsclip_again.py is skipped: KeyError" in done.stderr
